"""Drawn pictures, the same for the same seed, and the prompts of a session on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import cv2
import numpy as np
import numpy.typing as npt

SIDE_PX = 512
MARK_PX = 8
NUMBERS = count(time.time_ns())
"""One sequence for all of a process, and another at each start: a server that runs on remembers what it was sent."""
OBJECTS = 5
PROMPTS = 10
CLICKS = (0, 1, 2, 1, 0, 1, 2, 3, 1, 0)
"""Clicks beside the box in each prompt of a session: LiteMedSAM was trained with boxes, clicks refine them."""


@dataclass(frozen=True)
class Prompt:
    """`box`: x0, y0, x1, y1 and `points`: (x, y, label) in pixels of the picture."""

    box: tuple[int, int, int, int]
    points: tuple[tuple[int, int, int], ...] = ()

    def body(self) -> dict[str, object]:
        """The fields of `/v1/segment`."""
        return {"boxes": [self.box], **({"points": self.points} if self.points else {})}


@dataclass(frozen=True)
class Picture:
    """A gray picture: a bright disc's rim on a slope, ellipses in it, noise over it."""

    seed: int
    side_px: int = SIDE_PX

    @cached_property
    def _ellipses(self) -> tuple[tuple[int, int, int, int], ...]:
        rng, side = np.random.default_rng([7, self.seed]), self.side_px
        rows = rng.uniform((0.25, 0.25, 0.06, 0.06), (0.75, 0.75, 0.18, 0.18), (OBJECTS, 4)) * side
        return tuple((int(x), int(y), int(a), int(b)) for x, y, a, b in rows)

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """(side, side) uint8."""
        rng, side = np.random.default_rng([8, self.seed]), self.side_px
        y, x = np.mgrid[:side, :side].astype(np.float32)
        body = (np.hypot(x - side / 2, y - side / 2) < 0.47 * side).astype(np.float32)
        drawn = 20 + body * (50 + 20 * x / side)
        for number, (cx, cy, a, b) in enumerate(self._ellipses):
            inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1
            drawn[inside] = 110 + 25 * number
        smooth = cv2.GaussianBlur(drawn, (0, 0), 1.5)
        noise = cv2.GaussianBlur(rng.normal(0, 12, (side, side)).astype(np.float32), (0, 0), 1.0)
        return np.asarray(np.clip(smooth + noise, 0, 255), np.uint8)

    @cached_property
    def png(self) -> bytes:
        """The picture as a PNG file."""
        _, file = cv2.imencode(".png", self.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return bytes(file.tobytes())

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """A session's ten prompts: boxes around the objects, with up to three clicks in them."""
        rng = np.random.default_rng([9, self.seed])
        made = []
        for number in range(PROMPTS):
            cx, cy, a, b = self._ellipses[number % OBJECTS]
            margin = 4 + number
            last = self.side_px - 1
            box = (max(cx - a - margin, 0), max(cy - b - margin, 0), min(cx + a + margin, last), min(cy + b + margin, last))
            points = tuple(
                (int(cx + rng.uniform(-a, a) / 2), int(cy + rng.uniform(-b, b) / 2), 1) for _ in range(CLICKS[number])
            )
            made.append(Prompt(box, points))
        return tuple(made)


def several(count: int, start: int = 0, side_px: int = SIDE_PX) -> list[Picture]:
    """Different pictures, from seed `start` on."""
    return [Picture(start + n, side_px) for n in range(count)]


def endless(pictures: list[Picture]) -> Iterator[bytes]:
    """PNG files no two of which are alike, however many are taken: the pictures in turn, each with a number of its own.

    The number is in the first eight pixels of the last row. The file is stored, not deflated: that is quick to make.
    """
    canvases = [picture.pixels.copy() for picture in pictures]
    while True:
        for canvas in canvases:
            canvas[-1, :MARK_PX] = np.frombuffer(next(NUMBERS).to_bytes(MARK_PX, "little"), np.uint8)
            _, file = cv2.imencode(".png", canvas, [cv2.IMWRITE_PNG_COMPRESSION, 0])
            yield file.tobytes()


def nrrd(slices: int, side_px: int = 100) -> bytes:
    """A volume of `slices` x side x side uint8 in an NRRD file: a body of about that many bytes with one small picture."""
    picture = Picture(1, side_px).pixels
    volume = np.repeat(picture[None], slices, axis=0)
    head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {side_px} {side_px} {slices}\nencoding: raw\nspacings: 1 1 1\n\n"
    return head.encode() + volume.tobytes()
