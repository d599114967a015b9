"""Prompts: what a user points at, in pixels of the original frame; or says, as labels and text."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.domain.image import Frame
from serving.errors import Fault, Kind

LOGITS_SIDE_PX = 256
"""Side of a mask prompt: a SAM mask decoder's low-resolution logits, (256, 256)."""


@dataclass(frozen=True)
class Box:
    """Two corners, pixels of the original frame, with x0 < x1 and y0 < y1."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        values = (self.x0, self.y0, self.x1, self.y1)
        if not all(math.isfinite(v) for v in values):
            raise Fault(Kind.INVALID, "a box needs four finite numbers [x0, y0, x1, y1]", param="boxes")
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise Fault(Kind.INVALID, "a box needs x0 < x1 and y0 < y1: [x0, y0, x1, y1] in pixels", param="boxes")
        if min(values) < 0:
            raise Fault(Kind.INVALID, "a box starts outside the image: coordinates are pixels from 0", param="boxes")

    def within(self, frame: Frame) -> Box:
        """This box, or a Fault when it leaves the frame."""
        width, height = frame.size_px
        if self.x1 > width or self.y1 > height:
            raise Fault(Kind.INVALID, f"a box leaves the image, which is {width} x {height} pixels", param="boxes")
        return self


@dataclass(frozen=True)
class Point:
    """A click at (x, y), pixels of the original frame; `positive` for foreground."""

    x: float
    y: float
    positive: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x) and math.isfinite(self.y)):
            raise Fault(Kind.INVALID, "a point needs two finite numbers [x, y]", param="points")
        if self.x < 0 or self.y < 0:
            raise Fault(Kind.INVALID, "a point lies outside the image: coordinates are pixels from 0", param="points")

    def within(self, frame: Frame) -> Point:
        """This point, or a Fault when it lies outside the frame."""
        width, height = frame.size_px
        if self.x > width or self.y > height:
            raise Fault(Kind.INVALID, f"a point lies outside the image, which is {width} x {height} pixels", param="points")
        return self


@dataclass(frozen=True, eq=False)
class MaskLogits:
    """Low-resolution logits of an earlier answer: (256, 256) float32, model frame."""

    values: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.shape != (LOGITS_SIDE_PX, LOGITS_SIDE_PX):
            raise Fault(Kind.INVALID, "previous logits must be 256 x 256 numbers", param="mask")
        if not np.isfinite(self.values).all():
            raise Fault(Kind.INVALID, "previous logits must be finite", param="mask")


@dataclass(frozen=True)
class ObjectPrompt:
    """Everything said about one object: a box, clicks, earlier logits, at least one of them."""

    box: Box | None = None
    points: tuple[Point, ...] = ()
    logits: MaskLogits | None = None

    def __post_init__(self) -> None:
        if self.box is None and not self.points and self.logits is None:
            raise Fault(Kind.INVALID, "an object needs a box, a point or previous logits", param="objects")

    def within(self, frame: Frame) -> ObjectPrompt:
        """This prompt, or a Fault when a part of it leaves the frame."""
        if self.box is not None:
            self.box.within(frame)
        for point in self.points:
            point.within(frame)
        return self


@dataclass(frozen=True)
class Labels:
    """Candidate labels for zero-shot classification, with the templates that turn a label into a sentence.

    `templates`: each holds one ``{}``. Empty means the model's own. `negatives`: the negative templates of a pair model
    such as CheXzero (positive ``{}`` with negative ``no {}``), as many as `templates`.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise Fault(Kind.INVALID, "labels is empty: send at least one label", param="labels")
        if any(not name.strip() for name in self.names):
            raise Fault(Kind.INVALID, "a label is blank: each label needs text", param="labels")
        if len(set(self.names)) != len(self.names):
            raise Fault(Kind.INVALID, "a label is given twice: labels must differ", param="labels")
        for template in (*self.templates, *self.negatives):
            if template.count("{}") != 1:
                raise Fault(Kind.INVALID, "a template needs exactly one {} for the label", param="templates")
        if self.negatives and len(self.negatives) != len(self.templates):
            raise Fault(Kind.INVALID, "negative templates must be as many as templates", param="negative_templates")
