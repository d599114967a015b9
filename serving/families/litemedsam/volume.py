"""LiteMedSAM on a volume's slices: upstream's rule for the next slice's box (CVPR24_LiteMedSAM_infer.py, branch LiteMedSAM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from serving.domain.image import Image
from serving.domain.prompt import ObjectPrompt
from serving.domain.request import Request
from serving.domain.volume import SegmentVolume, VolumeObject
from serving.embeddings.aside import Aside
from serving.engines.engine import Engine
from serving.families.family import Tools
from serving.families.litemedsam.postprocess import binary_mask
from serving.families.litemedsam.preprocess import SIDE_PX, ModelInput, content_size_px, prepare
from serving.families.litemedsam.prompts import BOTTOM_RIGHT, OBJECTS_A_CALL, TOP_LEFT, Token, check, tokens
from serving.imaging.volumes import Slices
from serving.shm import Slot
from serving.telemetry.stages import Stages

SHIFT_PX = 3
"""Upstream's `bbox_shift`: the box of the mask before, wider by so many pixels of the model frame on each side."""


@dataclass(frozen=True, eq=False)
class Spelled:
    """One object's prompt: its tokens in the model frame, and (256, 256) float32 logits or None."""

    tokens: tuple[Token, ...]
    logits: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """The model's engines and where its Features go."""

    image_encoder: Engine
    mask_decoder: Engine
    mask_refiner: Engine
    aside: Aside


class LiteMedSamSlices:
    """Implements `families.volume_walk.SliceModel`."""

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
        self._content_px = content_size_px(self._frame.size_px)
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

    def mask(self, said: Any) -> npt.NDArray[np.bool_]:
        """Logits -> mask of the slice."""
        with self._stages.measure("postprocess"):
            return binary_mask(said, self._content_px, self._frame.size_px)

    def first_prompt(self, number: int) -> Spelled:
        """The user's prompt; of a mask on the key slice, the box that it would give its neighbour."""
        return self._first[number]

    def next_prompt(self, number: int, mask: npt.NDArray[np.bool_]) -> Spelled | None:
        """The box around the mask in the model frame, wider by `SHIFT_PX`; None where the shrunken mask is empty.

        Upstream shrinks a map that holds the object's number, counted from 1, and keeps what does not round to 0: thin parts
        of later objects survive better. That is kept, or masks would differ from the published loop's.
        """
        value = min(number + 1, 255)
        small = np.asarray(cv2.resize(mask.astype(np.uint8) * value, self._content_px, interpolation=cv2.INTER_AREA))
        x, y, width, height = cv2.boundingRect(small)
        if not width:
            return None
        left, top = max(0, x - SHIFT_PX), max(0, y - SHIFT_PX)
        right, bottom = min(SIDE_PX, x + width - 1 + SHIFT_PX), min(SIDE_PX, y + height - 1 + SHIFT_PX)
        return Spelled(((float(left), float(top), TOP_LEFT), (float(right), float(bottom), BOTTOM_RIGHT)))

    def _spell(self, number: int, item: VolumeObject) -> Spelled:
        if isinstance(item.shown, ObjectPrompt):
            earlier = item.shown.logits
            return Spelled(tokens(item.shown, self._frame.size_px), None if earlier is None else earlier.values)
        found = self.next_prompt(number, item.shown.mask)
        corners = ((0.0, 0.0, TOP_LEFT), (float(self._content_px[0]), float(self._content_px[1]), BOTTOM_RIGHT))
        return found or Spelled(corners)

    async def _fill(self, index: int, slot: Slot) -> None:
        given = await self._tools.run(partial(self._prepare, index))
        timing = self._stages.timing("encode")
        request = self._request
        await self._parts.image_encoder.infer(
            {"image": given.tensor}, request.deadline, priority=request.priority, slot=slot, timing=timing
        )

    def _prepare(self, index: int) -> ModelInput:
        with self._stages.measure("preprocess"):
            return prepare(Image(self._slices.pixels(index), self._frame))

    async def _call(self, features: Slot, prompts: Sequence[Spelled]) -> npt.NDArray[np.float32]:
        table = np.asarray([each.tokens for each in prompts], np.float64)
        given: dict[str, npt.NDArray[Any]] = {
            "points": table[None, ..., :2].astype(np.float32),
            "labels": table[None, ..., 2].astype(np.int64),
        }
        engine = self._parts.mask_decoder
        earlier = [each.logits for each in prompts if each.logits is not None]
        if earlier:
            given["logits"] = np.stack(earlier)[None, :, None].astype(np.float32)
            engine = self._parts.mask_refiner
        request, timing = self._request, self._stages.timing("decode_mask")
        out = await engine.infer(
            given, request.deadline, outputs=("mask",), priority=request.priority, slot=features, timing=timing
        )
        logits: npt.NDArray[np.float32] = out["mask"][0][:, 0]
        return logits


def _alike(prompts: Sequence[Spelled]) -> list[list[int]]:
    """Which prompts share a decoder call: see `prompts.group`."""
    found: dict[tuple[int, bool], list[int]] = {}
    for row, each in enumerate(prompts):
        found.setdefault((len(each.tokens), each.logits is not None), []).append(row)
    return [rows[start : start + OBJECTS_A_CALL] for rows in found.values() for start in range(0, len(rows), OBJECTS_A_CALL)]
