"""Requests: a task with its image or text and prompts, for whom, until when."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from serving.domain.image import EncodedImage, ImageHandle, ImageSource
from serving.domain.prompt import Labels, ObjectPrompt
from serving.domain.volume import SegmentVolume
from serving.errors import Fault, Kind


class Deadline:
    """A point in this process's monotonic time. Crosses processes as the seconds that remain (transfer not counted)."""

    __slots__ = ("at_s",)

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that many seconds from now. Raises Fault where it is not a finite number above 0."""
        if not math.isfinite(seconds):
            raise Fault(Kind.INVALID, "the deadline must be a number of milliseconds above 0", param="deadline")
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Seconds left; negative when passed."""
        return self.at_s - time.monotonic()

    def check(self, stage: str) -> float:
        """Seconds left, or the DEADLINE fault that names the stage which found it passed."""
        left = self.remaining_s()
        if left <= 0:
            raise Fault(Kind.DEADLINE, f"the deadline passed before {stage}", param="deadline")
        return left

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebase, (self.remaining_s(),))


def _rebase(remaining_s: float) -> Deadline:
    return Deadline(time.monotonic() + remaining_s)


class Priority(Enum):
    """Interactive work goes before bulk work."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class MaskFormat(Enum):
    """How a mask leaves: COCO's compressed RLE, 1-bit PNG, polygons, or bits packed and deflated."""

    RLE = "rle"
    PNG = "png"
    POLYGON = "polygon"
    PACKED = "packed"


@dataclass(frozen=True)
class Segment:
    """Visual prompts -> masks. One ObjectPrompt an object; `multimask`: three candidate masks an object instead of one."""

    image: ImageSource
    objects: tuple[ObjectPrompt, ...]
    multimask: bool = False
    output: MaskFormat = MaskFormat.RLE
    return_logits: bool = False

    def __post_init__(self) -> None:
        if not self.objects:
            raise Fault(Kind.INVALID, "no prompt: send boxes, points or a mask", param="boxes")


@dataclass(frozen=True)
class Encode:
    """Encode ahead: an image -> a handle for later prompts."""

    image: EncodedImage


@dataclass(frozen=True)
class Lookup:
    """What is known of a handle; with `drop`, forget it."""

    handle: ImageHandle
    drop: bool = False


@dataclass(frozen=True)
class Classify:
    """Images and labels -> scores (images x labels)."""

    images: tuple[ImageSource, ...]
    labels: Labels

    def __post_init__(self) -> None:
        if not self.images:
            raise Fault(Kind.INVALID, "no image: send at least one", param="images")


@dataclass(frozen=True)
class Embed:
    """Images or texts -> one vector each."""

    images: tuple[ImageSource, ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.images) == bool(self.texts):
            raise Fault(Kind.INVALID, "send either images or texts", param="texts")
        if any(not text.strip() for text in self.texts):
            raise Fault(Kind.INVALID, "a text is blank", param="texts")


Task = Segment | Encode | Lookup | Classify | Embed | SegmentVolume


@dataclass(frozen=True)
class Request:
    """One unit of work. `model`: the name asked for, or None to let the router choose by prompt kind.

    `trace`: the `traceparent` of the process that sent it on, or empty.
    """

    task: Task
    deadline: Deadline
    request_id: str
    model: str | None = None
    tenant: str = "default"
    priority: Priority = Priority.INTERACTIVE
    trace: str = ""

    def with_model(self, model: str) -> Request:
        """This request, addressed to that model."""
        return replace(self, model=model)

    def with_trace(self, trace: str) -> Request:
        """This request, to be traced below that `traceparent`."""
        return replace(self, trace=trace) if trace != self.trace else self


def images_of(task: Task) -> tuple[ImageSource, ...]:
    """The images that a task carries, in order."""
    match task:
        case Segment() | Encode():
            return (task.image,)
        case Lookup():
            return (task.handle,)
        case Classify() | Embed():
            return task.images
        case SegmentVolume():
            return ()
