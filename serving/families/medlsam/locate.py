"""Where a support set's structures lie in a volume: first guess by positions, refinement by features."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.prompt import Box, ObjectPrompt
from serving.domain.request import Request
from serving.domain.volume import VolumeFrame, VolumeObject
from serving.engines.engine import Engine
from serving.families.medlsam import offsets
from serving.families.medlsam.orientation import Orientation
from serving.families.medlsam.supports import Floats, Structure
from serving.telemetry.stages import Stages

MARGIN = 10 / 1024
"""Boxes grow on every side by so much of the slice's width and height: upstream's 10 pixels in MedSAM's frame."""
Run = Callable[[Callable[[], Any]], Awaitable[Any]]
Boxes = npt.NDArray[np.int64]


async def _nobody(done: int, total: int) -> None:
    return None


@dataclass(frozen=True)
class Locator:
    """The two engines, and how this request runs them. `told`: how many of the engines' calls are done, and of how many."""

    position: Engine
    refine: Engine
    run: Run
    request: Request
    stages: Stages
    told: Callable[[int, int], Awaitable[None]] = _nobody

    async def find(self, volume: Floats, orientation: Orientation, structures: Sequence[Structure]) -> list[Boxes]:
        """A prepared volume -> of each structure (m, 2, 3): a box a part, in voxels of the stored array, both ends included."""
        done = itertools.count(1)

        async def step() -> None:
            await self.told(next(done), steps(structures))

        centres = await self.run(partial(offsets.centres, volume))
        patches = np.stack([offsets.patch(volume, each) for each in centres])[:, None]
        position = (await self._call(self.position, {"patch": patches}))["position"].mean(0)
        start = centres.mean(0)
        await step()
        return [await self._structure(volume, orientation, each, position, start, step) for each in structures]

    async def _structure(
        self,
        volume: Floats,
        orientation: Orientation,
        shown: Structure,
        position: Floats,
        start: npt.NDArray[Any],
        step: Callable[[], Awaitable[None]],
    ) -> Boxes:
        guess = offsets.guess(offsets.relative_mm(shown.positions, position), start, volume.shape)
        best = []
        for number, centre in enumerate(guess):
            best.append(await self._best(volume, centre, shown, number))
            await step()
        return offsets.boxes(guess + offsets.refinement(np.array(best)), orientation)

    async def _best(self, volume: Floats, centre: npt.NDArray[np.int64], shown: Structure, number: int) -> tuple[int, ...]:
        given = {name: value[number : number + 1] for name, value in shown.features.items()}
        given["patch"] = np.ascontiguousarray(offsets.patch(volume, centre))[None, None]
        alike = (await self._call(self.refine, given))["similarity"][0]
        return tuple(int(each) for each in np.unravel_index(int(alike.argmax()), alike.shape))

    async def _call(self, engine: Engine, given: Mapping[str, Floats]) -> dict[str, npt.NDArray[Any]]:
        await asyncio.sleep(0)
        request = self.request
        return await engine.infer(given, request.deadline, priority=request.priority, timing=self.stages.timing("encode"))


def steps(structures: Sequence[Structure]) -> int:
    """Calls to engines that `find` makes: for the volume's position, and for each point."""
    return 1 + sum(len(each.positions) for each in structures)


def objects(found: Sequence[Boxes], frame: VolumeFrame, axis: int) -> tuple[VolumeObject, ...]:
    """Boxes of structures -> what is asked of the slices: of structure n, runs of slices with one box each, labelled n.

    Where parts share a slice the later one's box stands, as upstream's loop overwrites; slices between parts are left out.
    """
    across, down = (each for each in range(3) if each != axis)
    size_px = frame.slice_frame(axis).size_px
    made = []
    for label, boxes in enumerate(found):
        owner = np.full(frame.slices(axis), -1)
        for number, (low, high) in enumerate(boxes):
            owner[low[axis] : high[axis] + 1] = number
        for first, last in _runs(owner):
            low, high = boxes[owner[first]]
            spans = [_span(low[n], high[n], side) for n, side in zip((across, down), size_px, strict=True)]
            box = Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1])
            made.append(VolumeObject(ObjectPrompt(box), first, first, last, follow=False, label=label))
    return tuple(made)


def _span(low: int, high: int, side: int) -> tuple[float, float]:
    return max(float(low) - MARGIN * side, 0.0), min(float(high) + MARGIN * side, float(side))


def _runs(owner: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last index of each run of equal numbers from 0 on."""
    cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(owner)]
    return [(a, b - 1) for a, b in itertools.pairwise(cuts) if owner[a] >= 0]
