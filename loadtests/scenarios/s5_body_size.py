"""S5: one prompt with its image inline, in bodies of 10 KB to 10 MB whose Features are held."""

from locust import User, constant, task

from scenarios.users import OverGrpc, OverHttp
from serving.bench import asking
from serving.bench.pictures import Picture, nrrd
from serving.bench.s5 import SIDE_PX, SIZES

PROMPT = Picture(1, SIDE_PX).prompts[0]
ASKS = [asking.inline(nrrd(slices, SIDE_PX), PROMPT, kind=name, index=0) for name, slices in SIZES.items()]


class Bodies(User):
    """The sizes in turn."""

    abstract = True
    wait_time = constant(0.05)
    turn = 0

    @task
    def send(self):
        """The next size."""
        self.call(ASKS[self.turn % len(ASKS)])
        self.turn += 1


class S5Http(Bodies, OverHttp):
    """Over HTTP."""


class S5Grpc(Bodies, OverGrpc):
    """Over gRPC."""
