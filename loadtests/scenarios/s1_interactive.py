"""S1: a session. An image is shown, then ten prompts come, with 200 ms of thought between (`--prompts`, `--think`).

Every image is new, or one of a few (`--pictures`), but for a part of them (`--new`).
"""

import random
import time
from itertools import count

from locust import User, task

from scenarios.users import AGAIN, OverGrpc, OverHttp
from serving.bench import asking
from serving.bench.pictures import Picture

SEEDS = count(20_000)
SENT_AGAIN = 3
"""How often an image is sent again for one prompt."""


class Session(User):
    """The next session starts with another image."""

    abstract = True
    picture = None

    def wait_time(self):
        """Seconds of thought."""
        return self.environment.parsed_options.think

    @task
    def step(self):
        """The image, or the next prompt."""
        if self.picture is None:
            self.picture, self.place = self._next(), 0
            self._show()
        if self.image_id is not None:
            self._prompt(self.picture.prompts[self.place % len(self.picture.prompts)])
            self.place += 1
        if self.image_id is None or self.place == self.environment.parsed_options.prompts:
            self.picture = None

    def _next(self):
        seed, options = next(SEEDS), self.environment.parsed_options
        few = [int(each) for each in options.pictures.split(",") if each]
        return Picture(few[seed % len(few)] if few and random.random() >= options.new else seed)

    def _show(self):
        reply = self.call(asking.encode(self.picture.png))
        self.image_id = reply.image_id() if reply is not None else None

    def _prompt(self, prompt):
        """Where its Features are gone a client with retries sends the image again; else the session begins anew."""
        began, name = time.perf_counter(), "prompt" if self.place else "first prompt"
        for _ in range(1 + SENT_AGAIN):
            if self.call(asking.by_handle(self.image_id, prompt), name, began) is not None:
                return
            if self.code != AGAIN or not self.environment.parsed_options.retries:
                break
            self._show()
            if self.image_id is None:
                break
        self.image_id = None


class S1Http(Session, OverHttp):
    """Over HTTP."""


class S1Grpc(Session, OverGrpc):
    """Over gRPC."""
