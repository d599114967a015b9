"""From a volume as sent to its file of masks: read, check, walk, write. A family that does not walk uses the parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.answer import ModelInfo
from serving.domain.request import Request
from serving.domain.volume import (
    ClassNames,
    SegmentVolume,
    VolumeAccepted,
    VolumeAnswer,
    VolumeEvent,
    VolumeObject,
)
from serving.errors import Fault, Kind, SetupError
from serving.families.family import Tools
from serving.families.volume_walk import SliceModel, Walk
from serving.imaging.volume import Volume
from serving.imaging.volume_file import Collector
from serving.imaging.volumes import Slices
from serving.telemetry.stages import Stages

Tell = Callable[[VolumeEvent], Awaitable[None]]
Open = Callable[[Slices, tuple[VolumeObject, ...]], SliceModel[Any, Any]]
"""The model on one volume: its slices as pictures, and the objects that were checked against it."""


async def answer(
    request: Request,
    tools: Tools,
    info: ModelInfo,
    stages: Stages,
    tell: Tell,
    open_model: Open,
    volume: Volume | None = None,
) -> VolumeAnswer:
    """Masks of all objects on all their slices. `tell` is given VolumeAccepted, then VolumeProgress. Raises Fault.

    `volume`: the request's, where it is read already.
    """
    task = request.task
    if not isinstance(task, SegmentVolume) or tools.read_volume is None:
        raise SetupError(f"model {info.name} was asked for a volume without the means to read one")
    objects = objects_of(task, info.name)
    slices = await tools.run(partial(_slices, task, tools, stages, volume))
    for item in objects:
        item.within(slices.frame, task.axis)
    walk = Walk(objects, slices.frame.slices(task.axis), open_model(slices, objects), tools.run, request.deadline)
    labels = [number if item.label is None else item.label for number, item in enumerate(objects)]
    collector = Collector(slices.frame, task.axis, max(labels) + 1, task.output)

    def collect(index: int, number: int, mask: npt.NDArray[np.bool_]) -> None:
        collector.add(index, labels[number], mask)

    await tell(VolumeAccepted(slices.frame, max(labels) + 1, walk.visits, info))
    await walk.go(collect, tell)
    data = await tools.run(partial(write, collector, stages))
    return VolumeAnswer(data, task.output, slices.frame, collector.objects(), info, dict(stages.seconds))


def objects_of(task: SegmentVolume, model: str) -> tuple[VolumeObject, ...]:
    """The objects that are shown. Raises Fault(INVALID) for class names, which models without a support set do not take."""
    if isinstance(task.objects, ClassNames):
        raise Fault(Kind.INVALID, f"{model} takes boxes, points or a mask on a key slice, not class names", param="classes")
    return task.objects


def read(task: SegmentVolume, tools: Tools, stages: Stages) -> Volume:
    """The voxels. Blocking. Raises Fault."""
    assert tools.read_volume is not None
    with stages.measure("decode"):
        return tools.read_volume(task.volume)


def _slices(task: SegmentVolume, tools: Tools, stages: Stages, volume: Volume | None) -> Slices:
    """The volume's slices as pictures. Blocking. Raises Fault."""
    volume = volume or read(task, tools, stages)
    with stages.measure("preprocess"):
        return Slices(volume, task.volume.window, task.axis)


def write(collector: Collector, stages: Stages) -> bytes:
    """The result as a file. Blocking."""
    with stages.measure("serialise"):
        return collector.file()
