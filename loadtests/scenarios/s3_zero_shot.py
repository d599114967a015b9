"""S3: one image after another against 14 labels, now and then against 100. `--model` names the contrastive model."""

from locust import User, constant, task

from scenarios.users import OverGrpc, OverHttp
from serving.bench import asking
from serving.bench.pictures import endless, several
from serving.bench.s3 import LABELS, SIDE_PX

FILES = endless(several(16, 500, SIDE_PX))


class ZeroShot(User):
    """Labels repeat, no image does."""

    abstract = True
    wait_time = constant(0)

    def _classify(self, labels):
        self.call(asking.classify(next(FILES), LABELS[labels], self.environment.parsed_options.model, kind=f"{labels} labels"))

    @task(3)
    def few(self):
        """14 labels."""
        self._classify(14)

    @task(1)
    def many(self):
        """100 labels."""
        self._classify(100)


class S3Http(ZeroShot, OverHttp):
    """Over HTTP."""


class S3Grpc(ZeroShot, OverGrpc):
    """Over gRPC."""
