"""What a request will cost its pool: its class of work, and the time of each class and model as learnt from the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from serving.domain.image import ImageHandle
from serving.domain.request import Classify, Embed, Encode, Lookup, Segment, Task
from serving.domain.volume import SegmentVolume

SMOOTHING = 0.1
OUTLIER = 10.0
"""A measurement counts as this many times the mean at most: one slow start must not close the gate."""
POOL = ""
"""In place of a model: all of them."""
MASK = "mask"
"""The kind of work that is one mask's decoding."""
WAITING = "queue"
"""The stage that is no service."""
MASK_STAGES = ("decode_mask", "postprocess", "serialise")
"""What each object costs, whether its image was new or known."""


class Lane(IntEnum):
    """Which engines do the work. A lower lane goes first: the image encoders yield the processor to everything else."""

    PROMPT = 0
    ENCODE = 1
    VOLUME = 2
    """Whole volumes: slice by slice, each behind whatever else waits; they hold nobody up for longer than a slice."""


LANES = tuple(Lane)
"""All of them: a tuple is gone through several times as fast as its enumeration, and the door does so at each request."""


@dataclass(frozen=True)
class Work:
    """The class of a task and how much of it there is: `items` of `kind` (images, texts), and `masks` objects to decode.

    `kind` is empty where only masks are decoded. A segmentation that brings its image may find it encoded already, which is
    known only afterwards: its kind is learnt as the mix of both. `model`: who does it; one model's encode may take tens of
    times another's.
    """

    lane: Lane
    kind: str = ""
    items: int = 0
    masks: int = 0
    model: str = ""


def work_of(task: Task, model: str = "") -> Work:
    """The class of a task that a model is to do."""
    return replace(_work_of(task), model=model)


def _work_of(task: Task) -> Work:
    match task:
        case Segment(image=ImageHandle()):
            return Work(Lane.PROMPT, masks=len(task.objects))
        case Segment():
            return Work(Lane.ENCODE, "segment", 1, len(task.objects))
        case Encode():
            return Work(Lane.ENCODE, "encode", 1)
        case Lookup():
            return Work(Lane.PROMPT)
        case Classify():
            return Work(Lane.PROMPT, "classify", len(task.images))
        case Embed():
            return Work(Lane.PROMPT, "embed_images" if task.images else "embed_texts", len(task.images or task.texts))
        case SegmentVolume():
            return Work(Lane.VOLUME, "volume", 1)


class Costs:
    """The mean seconds of one item of each kind and of one mask, of each model, weighted towards the latest.

    The means of the whole pool stand in for a model that has answered nothing of a kind yet.
    """

    def __init__(self) -> None:
        self._means: dict[tuple[str, str], float] = {}
        """(model, kind) -> seconds; the model is empty for the pool's."""
        self._counts: dict[tuple[str, str], int] = {}

    def expected_s(self, work: Work) -> float:
        """Seconds of service that a request of this class takes; what was never measured counts as nothing."""
        return self._mean_s(work.model, work.kind) * work.items + self._mean_s(work.model, MASK) * work.masks

    def _mean_s(self, model: str, kind: str) -> float:
        own = self._means.get((model, kind))
        return self._means.get((POOL, kind), 0.0) if own is None else own

    def learn(self, work: Work, spent: Mapping[str, float], at_most_s: float) -> None:
        """From one answer. `spent`: stage -> seconds, `queue` apart; they may hold a wait for the engine that nobody told.

        `at_most_s`: how long the engine can have worked on it. Stages that add up to more are shortened in proportion.
        """
        service = {stage: seconds for stage, seconds in spent.items() if stage != WAITING}
        total_s = sum(service.values())
        share = min(1.0, at_most_s / total_s) if total_s else 0.0
        masks_s = sum(service.get(stage, 0.0) for stage in MASK_STAGES) if work.masks else 0.0
        for model in {work.model, POOL}:
            if work.masks:
                self._add((model, MASK), share * masks_s / work.masks)
            if work.items:
                self._add((model, work.kind), share * (total_s - masks_s) / work.items)

    def _add(self, key: tuple[str, str], seconds: float) -> None:
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count == 1:
            self._means[key] = seconds
            return
        mean = self._means[key]
        weight = max(SMOOTHING, 1 / count)
        self._means[key] = mean + weight * (min(seconds, OUTLIER * max(mean, 0.001)) - mean)
