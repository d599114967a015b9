"""Objects followed slice by slice from their key slices by what the model remembers of them.

A box or clicks on the key slice are decoded there, a mask is taken as it is; every other slice is asked with the memories of
the slices before it, in its own direction. Who walks gives the slices in order, each with its Features and its objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.prompt import ObjectPrompt
from serving.domain.request import Deadline, Priority
from serving.engines.engine import Engine, Timing, ignore
from serving.families.medsam2.memory import Remembered, Sighting, Track, to_bfloat16
from serving.families.medsam2.postprocess import best, filled, shown, steady
from serving.families.medsam2.preprocess import prepare_mask
from serving.families.medsam2.prompts import OBJECTS_A_CALL, group
from serving.families.medsam2.resample import antialiased
from serving.shm import Slot

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

MASK_LOGITS = (-10.0, 10.0)
"""Logits of a user's mask, outside and inside (`_use_mask_as_output`)."""


@dataclass(frozen=True, eq=False)
class Object:
    """One object: its prompt on slice `key`, tokens in pixels of the slice, or its mask (rows, columns) there.

    `slices`: how many it may lie on, which scales its pointers' ages.
    """

    shown: ObjectPrompt | Bools
    key: int
    slices: int


@dataclass(frozen=True, eq=False)
class Found:
    """One object on one slice: logits (S, S) float32 of the model frame, and what the slice leaves of it."""

    logits: Floats
    pointer: Floats
    score: float


class Propagation:
    """One volume's objects. `size_px`: (width, height) of its slices; `side_px`: of the model's frame. One event loop.

    `engines`: part -> engine. `timing`: stage -> who is told of its calls.
    """

    def __init__(
        self,
        objects: Sequence[Object],
        engines: Mapping[str, Engine],
        size_px: tuple[int, int],
        side_px: int,
        deadline: Deadline,
        priority: Priority = Priority.BULK,
        timing: Callable[[str], Timing] = lambda stage: ignore,
    ) -> None:
        self._objects, self._engines = objects, engines
        self._size_px, self._side_px = size_px, side_px
        self._deadline, self._priority, self._timing = deadline, priority, timing
        self._tracks: dict[tuple[int, bool], Track] = {}

    async def visit(self, index: int, slot: Slot, numbers: Sequence[int]) -> list[Floats]:
        """Logits (S, S) float32 of the objects on a slice, in the order of `numbers`; each is remembered for the next slice.

        An object's first visit is its key slice; then its slices upwards in order, and its slices downwards in order.
        """
        fresh = [n for n in numbers if self._objects[n].key == index]
        found = await self._begin(index, slot, fresh) if fresh else {}
        following = [n for n in numbers if self._objects[n].key != index]
        found |= await self._follow(index, slot, following) if following else {}
        return [found[n] for n in numbers]

    async def _begin(self, index: int, slot: Slot, numbers: Sequence[int]) -> dict[int, Floats]:
        found = await self._prompted(slot, [n for n in numbers if isinstance(self._objects[n].shown, ObjectPrompt)])
        found |= await self._masked(slot, [n for n in numbers if not isinstance(self._objects[n].shown, ObjectPrompt)])
        for number, sighting in (await self._remember(slot, found, prompted=True)).items():
            item = self._objects[number]
            for upwards in (True, False):
                self._tracks[number, upwards] = Track(item.key, item.slices, sighting)
        return {number: each.logits for number, each in found.items()}

    async def _follow(self, index: int, slot: Slot, numbers: Sequence[int]) -> dict[int, Floats]:
        """Objects that have equally much to remember share a call."""
        asked = {n: self._track(n, index).remembered(index) for n in numbers}
        alike: dict[tuple[int, int], list[int]] = {}
        for number, each in asked.items():
            alike.setdefault((len(each.places), len(each.ages)), []).append(number)
        found: dict[int, Found] = {}
        for members in _calls(alike.values()):
            out = await self._call("mask_tracker", slot, _stacked([asked[n] for n in members]), "decode_mask")
            for row, number in enumerate(members):
                found[number] = _choose(out, row, best(out["ious"][0, row]), pointer=None)
        for number, sighting in (await self._remember(slot, found, prompted=False)).items():
            self._track(number, index).add(index, sighting)
        return {number: filled(each.logits) for number, each in found.items()}

    async def _prompted(self, slot: Slot, numbers: Sequence[int]) -> dict[int, Found]:
        prompts = [shown for n in numbers if isinstance(shown := self._objects[n].shown, ObjectPrompt)]
        found: dict[int, Found] = {}
        for members in group(prompts, self._size_px, self._side_px):
            given: dict[str, npt.NDArray[Any]] = {"points": members.points[None], "labels": members.labels[None]}
            part = "mask_decoder"
            if members.logits is not None:
                given["logits"], part = members.logits[None], "mask_refiner"
            out = await self._call(part, slot, given, "decode_mask")
            for row, place in enumerate(members.objects):
                masks, ious = out["masks"][0, row], out["ious"][0, row]
                single = _is_ambiguous(prompts[place])
                chosen = best(ious) if single else steady(masks, ious)
                one = _choose(out, row, chosen, pointer=chosen if single else 0)
                found[numbers[place]] = Found(filled(one.logits), one.pointer, one.score)
        return found

    async def _masked(self, slot: Slot, numbers: Sequence[int]) -> dict[int, Found]:
        found: dict[int, Found] = {}
        shrink = antialiased(self._side_px // 4, self._side_px)
        for members in _calls([list(numbers)] if numbers else []):
            masks = [prepare_mask(np.asarray(self._objects[n].shown), self._side_px) for n in members]
            out = await self._call("mask_pointer", slot, {"mask": np.stack(masks)[None, :, None]}, "decode_mask")
            outside, inside = MASK_LOGITS
            for row, number in enumerate(members):
                logits = shrink @ (masks[row] * (inside - outside) + outside).astype(np.float32) @ shrink.T
                score = inside if masks[row].any() else outside
                found[number] = Found(filled(logits), out["pointer"][0, row], score)
        return found

    async def _remember(self, slot: Slot, found: Mapping[int, Found], prompted: bool) -> dict[int, Sighting]:
        made: dict[int, Sighting] = {}
        for members in _calls([list(found)] if found else []):
            rows = [found[n] for n in members]
            given = {
                "logits": np.stack([each.logits for each in rows])[None, :, None],
                "prompted": np.full((1, len(rows), 1), prompted, np.float32),
                "score": np.array([each.score for each in rows], np.float32).reshape(1, -1, 1),
            }
            out = await self._call("memory_encoder", slot, given, "encode")
            for row, number in enumerate(members):
                made[number] = Sighting(to_bfloat16(out["memory"][0, row]), rows[row].pointer)
        return made

    async def _call(
        self, part: str, slot: Slot, given: Mapping[str, npt.NDArray[Any]], stage: str
    ) -> dict[str, npt.NDArray[Any]]:
        return await self._engines[part].infer(
            given, self._deadline, priority=self._priority, slot=slot, timing=self._timing(stage)
        )

    def _track(self, number: int, index: int) -> Track:
        return self._tracks[number, index > self._objects[number].key]


def _choose(out: Mapping[str, npt.NDArray[Any]], row: int, chosen: int, pointer: int | None) -> Found:
    score = float(out["score"][0, row, 0])
    logits = shown(out["masks"][0, row, chosen], score)
    return Found(logits, out["pointers"][0, row, chosen if pointer is None else pointer], score)


def _is_ambiguous(prompt: ObjectPrompt) -> bool:
    """At most one click and no box: three candidates are asked for (`multimask_max_pt_num`)."""
    return prompt.box is None and len(prompt.points) <= 1


def _calls(alike: Any) -> list[list[int]]:
    return [members[start : start + OBJECTS_A_CALL] for members in alike for start in range(0, len(members), OBJECTS_A_CALL)]


def _stacked(rows: Sequence[Remembered]) -> dict[str, npt.NDArray[Any]]:
    memories, places, pointers, ages = (np.stack(column)[None] for column in zip(*rows, strict=True))
    return {"memories": memories, "places": places, "pointers_given": pointers, "ages": ages}
