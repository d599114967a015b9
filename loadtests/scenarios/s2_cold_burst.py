"""S2: every user opens the same new image in the same second, each with a prompt of its own; then the next image."""

import time

from locust import User, constant, task

from scenarios.users import OverGrpc, OverHttp
from serving.bench import asking
from serving.bench.pictures import Picture

EVERY_S = 4


class Burst(User):
    """The clock chooses the image, so that users need not talk to one another."""

    abstract = True
    wait_time = constant(0)
    users = 0

    def on_start(self):
        """Users take different prompts."""
        super().on_start()
        Burst.users += 1
        self.number = Burst.users

    @task
    def open(self):
        """Wait for the next burst, then open its image."""
        turn = int(time.time() // EVERY_S) + 1
        picture = Picture(30_000 + turn % 100_000)
        prompt = picture.prompts[self.number % len(picture.prompts)]
        ask = asking.inline(picture.png, prompt, kind="burst")
        time.sleep(max(turn * EVERY_S - time.time(), 0))
        reply = self.call(ask)
        if reply is not None:
            self.count("features", reply.features, 0, 0, None)


class S2Http(Burst, OverHttp):
    """Over HTTP."""


class S2Grpc(Burst, OverGrpc):
    """Over gRPC."""
