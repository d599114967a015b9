"""A SAM-like model on a volume's slices: each encoded to a slot, its objects decoded together, masks by its procedure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.image import Image
from serving.domain.prompt import ObjectPrompt
from serving.domain.request import Request
from serving.domain.volume import SegmentVolume, VolumeObject
from serving.embeddings.aside import Aside
from serving.engines.engine import Engine
from serving.errors import Fault, Kind
from serving.families.family import Tools
from serving.families.procedure import ModelInput, Procedure
from serving.families.prompts import OBJECTS_A_CALL, Token, check, tokens
from serving.families.sam_engines import decoder_call
from serving.imaging.volumes import Slices
from serving.shm import Slot
from serving.telemetry.stages import Stages

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Spelled:
    """One object's prompt: its tokens in the model frame, and (256, 256) float32 logits or None."""

    tokens: tuple[Token, ...]
    logits: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """The model's engines, how it sees a picture, and where its Features go. `decoders`: mask_decoder and mask_refiner."""

    image_encoder: Engine
    decoders: Mapping[str, Engine]
    procedure: Procedure
    aside: Aside


class SamSlices:
    """Implements `families.volume_walk.SliceModel` for objects that are shown on every one of their slices.

    A model that follows objects says what one slice's mask tells the next: `next_prompt`.
    """

    def __init__(
        self,
        slices: Slices,
        objects: tuple[VolumeObject, ...],
        parts: Parts,
        tools: Tools,
        request: Request,
        stages: Stages,
    ) -> None:
        assert isinstance(request.task, SegmentVolume)
        self._slices, self._parts, self._tools = slices, parts, tools
        self._request, self._stages = request, stages
        self._frame = slices.frame.slice_frame(request.task.axis)
        self._content_px = (0, 0)
        """(width, height) of a slice in the model frame, the same for all: told by the first one that is prepared."""
        check([item.shown for item in objects if isinstance(item.shown, ObjectPrompt)])
        self._first = [self._spell(number, item) for number, item in enumerate(objects)]

    async def encode(self, index: int) -> Slot:
        """A slot with the slice's Features."""
        return await self._parts.aside.get(index, partial(self._fill, index), self._request.deadline)

    def done(self, index: int, features: Slot, again: bool) -> None:
        """Give the slot back."""
        self._parts.aside.done(index, features, again)

    async def decode(self, index: int, features: Slot, prompts: Sequence[Spelled]) -> Sequence[Any]:
        """Logits (256, 256) float32 of each object; those with equally many tokens share a call."""
        said: list[Any] = [None] * len(prompts)
        for members in _alike(prompts):
            for row, logits in zip(members, await self._call(features, [prompts[n] for n in members]), strict=True):
                said[row] = logits
        return said

    def mask(self, said: Any) -> Bools:
        """Logits -> mask of the slice."""
        with self._stages.measure("postprocess"):
            return self._parts.procedure.mask(said, self._content_px, self._frame.size_px)

    def first_prompt(self, number: int) -> Spelled:
        """The user's prompt; of a mask on the key slice, the box that it would give its neighbour."""
        return self._first[number]

    def next_prompt(self, number: int, mask: Bools) -> Spelled | None:
        """None: nothing follows from a mask."""
        return None

    def _spell(self, number: int, item: VolumeObject) -> Spelled:
        if not isinstance(item.shown, ObjectPrompt):
            raise Fault(Kind.INVALID, "this model takes a box or points on a slice, not a mask", param="objects")
        earlier = item.shown.logits
        scale = self._parts.procedure.scale(self._frame.size_px)
        return Spelled(tokens(item.shown, scale), None if earlier is None else earlier.values)

    async def _fill(self, index: int, slot: Slot) -> None:
        given = await self._tools.run(partial(self._prepare, index))
        timing = self._stages.timing("encode")
        request = self._request
        await self._parts.image_encoder.infer(
            {"image": given.tensor}, request.deadline, priority=request.priority, slot=slot, timing=timing
        )

    def _prepare(self, index: int) -> ModelInput:
        with self._stages.measure("preprocess"):
            made = self._parts.procedure.prepare(Image(self._slices.pixels(index), self._frame))
        self._content_px = made.content_px
        return made

    async def _call(self, features: Slot, prompts: Sequence[Spelled]) -> npt.NDArray[np.float32]:
        table = np.asarray([each.tokens for each in prompts], np.float64)
        earlier = [each.logits for each in prompts if each.logits is not None]
        logits = np.stack(earlier)[:, None].astype(np.float32) if earlier else None
        part, given = decoder_call(table[..., :2].astype(np.float32), table[..., 2].astype(np.int64), logits)
        request, timing = self._request, self._stages.timing("decode_mask")
        out = await self._parts.decoders[part].infer(
            given, request.deadline, outputs=("mask",), priority=request.priority, slot=features, timing=timing
        )
        found: npt.NDArray[np.float32] = out["mask"][0][:, 0]
        return found


def _alike(prompts: Sequence[Spelled]) -> list[list[int]]:
    """Which prompts share a decoder call: see `prompts.group`."""
    found: dict[tuple[int, bool], list[int]] = {}
    for row, each in enumerate(prompts):
        found.setdefault((len(each.tokens), each.logits is not None), []).append(row)
    return [rows[start : start + OBJECTS_A_CALL] for rows in found.values() for start in range(0, len(rows), OBJECTS_A_CALL)]
