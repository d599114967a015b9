"""S4: 70 % prompts, 20 % classification, 10 % new images, each user a Poisson process of two calls a second."""

import random

from locust import User, task

from scenarios.users import OverGrpc, OverHttp
from serving.bench import asking, mix
from serving.bench.pictures import endless, several

RATE = 2.0
SMALL, LARGE = endless(several(16, 700, 224)), endless(several(16, 800))
PROMPTED = several(4)


class Mixed(User):
    """An exponential wait makes each user's arrivals a Poisson process, as long as answers are quicker than its gaps."""

    abstract = True
    handles = None

    def wait_time(self):
        """Seconds to the next arrival."""
        return random.expovariate(RATE)

    def _handles(self):
        if self.handles is None:
            replies = [(picture, self.call(asking.encode(picture.png), "set-up")) for picture in PROMPTED]
            self.handles = [(picture, reply.image_id()) for picture, reply in replies if reply is not None]
        return self.handles

    @task(7)
    def prompt(self):
        """Interactive."""
        if self._handles():
            picture, image_id = random.choice(self.handles)
            self.call(asking.by_handle(image_id, random.choice(picture.prompts), mix.PROMPT))

    @task(2)
    def classify(self):
        """Bulk."""
        model = self.environment.parsed_options.model
        self.call(asking.classify(next(SMALL), mix.LABELS, model, mix.CLASSIFY))

    @task(1)
    def encode(self):
        """Bulk."""
        self.call(asking.encode(next(LARGE), mix.ENCODE))


class S4Http(Mixed, OverHttp):
    """Over HTTP."""


class S4Grpc(Mixed, OverGrpc):
    """Over gRPC."""
