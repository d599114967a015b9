"""S1: a session. An image is shown, then ten prompts come, with 200 ms of thought between."""

from itertools import count

from locust import User, constant, task

from scenarios.users import OverGrpc, OverHttp
from serving.bench import asking
from serving.bench.pictures import Picture

SEEDS = count(20_000)


class Session(User):
    """The next session starts with another image."""

    abstract = True
    wait_time = constant(0.2)
    picture = None

    @task
    def step(self):
        """The image, or the next prompt."""
        if self.picture is None:
            self.picture, self.place = Picture(next(SEEDS)), 0
            reply = self.call(asking.encode(self.picture.png))
            self.image_id = reply.image_id() if reply is not None else None
        if self.image_id is not None:
            prompt = self.picture.prompts[self.place]
            if self.call(asking.by_handle(self.image_id, prompt), "prompt" if self.place else "first prompt") is None:
                self.image_id = None  # its Features are gone, say: the session begins anew
            self.place += 1
        if self.image_id is None or self.place == len(self.picture.prompts):
            self.picture = None


class S1Http(Session, OverHttp):
    """Over HTTP."""


class S1Grpc(Session, OverGrpc):
    """Over gRPC."""
