"""One small request to every model of a replica before it says that it is ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import numpy as np

from serving.domain.image import EncodedImage, RawLayout
from serving.domain.prompt import Box, Labels, ObjectPrompt, Point
from serving.domain.request import Classify, Deadline, Request, Segment, Task
from serving.domain.volume import SegmentVolume
from serving.errors import Fault, Kind, SetupError
from serving.families.family import Family
from serving.families.registry import FAMILIES
from serving.telemetry.stages import Stages

SIDE_PX = 64
RETRY_S = 0.25


def tasks(pool: str) -> tuple[Task, ...]:
    """The requests that touch every engine of a pool's models: a gradient with a bright square, and prompts for it."""
    gradient = np.add.outer(np.arange(SIDE_PX), np.arange(SIDE_PX)).astype(np.uint8)
    gradient[16:48, 16:48] += 100
    image = EncodedImage(gradient.tobytes(), "application/octet-stream", RawLayout("uint8", gradient.shape))
    if pool == "adaptive":
        box = ObjectPrompt(box=Box(14, 14, 50, 50))
        return (Segment(image, (box,)), Segment(image, (ObjectPrompt(points=(Point(32, 32),)), box)))
    return (Classify((image,), Labels(("finding", "other"))),)


def takes_pictures(family: Family) -> bool:
    """Whether there is anything small to ask: a model that takes nothing but volumes is warmed by the one that it asks."""
    declared = FAMILIES.get(family.manifest.family)
    return declared is None or declared.tasks != {SegmentVolume}


async def run(families: Mapping[str, Family], wait_s: float, answer_s: float) -> None:
    """Answer the warm-up tasks with every family, each within `answer_s`.

    Waits for a Triton that is still starting, up to `wait_s`. Raises Fault, SetupError where a model is too slow.
    """
    until = time.monotonic() + wait_s
    for name, family in families.items():
        for task in tasks(family.manifest.pool) if takes_pictures(family) else ():
            while True:
                request = Request(task, Deadline.after(answer_s), request_id="warm-up", model=name, tenant="warm-up")
                try:
                    await family.answer(request, Stages())
                    break
                except Fault as fault:
                    if fault.kind is Kind.DEADLINE:
                        raise SetupError(slow(f"model {name}", "warm-up", answer_s)) from fault
                    if fault.kind is not Kind.ENGINE_UNAVAILABLE or time.monotonic() > until:
                        raise
                    await asyncio.sleep(RETRY_S)


def slow(what: str, asked: str, answer_s: float) -> str:
    """What to do about one that did not answer in time."""
    return f"{what} did not answer its {asked} within {answer_s:.0f} s: allow more with MEDSERVE_TRITON__CALL_TIMEOUT_S"
