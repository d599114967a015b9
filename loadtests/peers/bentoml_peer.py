"""BentoML: one service with a dict of encoded images, one worker, so that the dict is shared by all its calls.

bentoml serve bentoml_peer:Segment --host 127.0.0.1 --port PORT

Its documentation would compose an encoder and a decoder service; then the Features would cross HTTP with every prompt.
"""

import itertools
from pathlib import Path

import bentoml
from litemedsam import Model


@bentoml.service(workers=1, threads=8, traffic={"timeout": 60, "concurrency": 32}, metrics={"enabled": False})
class Segment:
    """`encode` an image, `segment` by its name, `first` with both."""

    def __init__(self):
        self.model, self.images, self.numbers = Model(), {}, itertools.count()

    @bentoml.api
    def encode(self, image: Path) -> dict:
        """A file in multipart."""
        name = str(next(self.numbers))
        self.images[name] = self.model.encode(image.read_bytes())
        return {"image_id": name}

    @bentoml.api
    def segment(self, image_id: str, box: list[int], points: list[list[int]]) -> dict:
        """JSON."""
        return self.model.segment(self.images[image_id], box, points)

    @bentoml.api
    def first(self, image: Path, request: dict) -> dict:
        """A file and its first prompt, a JSON field, in multipart."""
        encoded = self.images[str(next(self.numbers))] = self.model.encode(image.read_bytes())
        return self.model.segment(encoded, request["box"], request["points"])
