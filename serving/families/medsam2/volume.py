"""MedSAM2 on a volume's slices: each object followed from its key slice to both ends by what the model remembers of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from serving.families.medsam2.postprocess import binary_mask
from serving.families.medsam2.preprocess import prepare
from serving.families.medsam2.prompts import check
from serving.families.medsam2.propagate import Object, Propagation
from serving.families.procedure import ModelInput
from serving.imaging.volumes import Slices
from serving.shm import Slot
from serving.telemetry.stages import Stages


class MedSam2Slices:
    """Implements `families.volume_walk.SliceModel`. A prompt is the object's number: what follows from it is remembered here.

    An object goes on behind slices that show nothing of it, as upstream's does: it may come back.
    """

    def __init__(
        self,
        slices: Slices,
        objects: Sequence[VolumeObject],
        engines: Mapping[str, Engine],
        aside: Aside,
        side_px: int,
        tools: Tools,
        request: Request,
        stages: Stages,
    ) -> None:
        assert isinstance(request.task, SegmentVolume)
        self._slices, self._engines, self._aside, self._side_px = slices, engines, aside, side_px
        self._tools, self._request, self._stages = tools, request, stages
        self._frame = slices.frame.slice_frame(request.task.axis)
        check([item.shown for item in objects if isinstance(item.shown, ObjectPrompt)])
        self._propagation = Propagation(
            [_object(item, slices.frame.slices(request.task.axis)) for item in objects],
            engines,
            self._frame.size_px,
            side_px,
            request.deadline,
            request.priority,
            stages.timing,
        )

    async def encode(self, index: int) -> Slot:
        """A slot with the slice's Features."""
        return await self._aside.get(index, partial(self._fill, index), self._request.deadline)

    def done(self, index: int, features: Slot, again: bool) -> None:
        """Give the slot back."""
        self._aside.done(index, features, again)

    async def decode(self, index: int, features: Slot, prompts: Sequence[int]) -> Sequence[Any]:
        """Logits (S, S) float32 of each object."""
        return await self._propagation.visit(index, features, prompts)

    def mask(self, said: Any) -> npt.NDArray[np.bool_]:
        """Logits -> mask of the slice."""
        with self._stages.measure("postprocess"):
            return binary_mask(said, self._frame.size_px)

    def first_prompt(self, number: int) -> int:
        """The object's number."""
        return number

    def next_prompt(self, number: int, mask: npt.NDArray[np.bool_]) -> int:
        """The object's number, whatever the mask."""
        del mask
        return number

    def prompt_behind_nothing(self, number: int, prompt: int) -> int:
        """The object's number."""
        del prompt
        return number

    async def _fill(self, index: int, slot: Slot) -> None:
        given = await self._tools.run(partial(self._prepare, index))
        request, timing = self._request, self._stages.timing("encode")
        await self._engines["image_encoder"].infer(
            {"image": given.tensor}, request.deadline, priority=request.priority, slot=slot, timing=timing
        )

    def _prepare(self, index: int) -> ModelInput:
        with self._stages.measure("preprocess"):
            return prepare(Image(self._slices.pixels(index), self._frame), self._side_px)


def _object(item: VolumeObject, slices: int) -> Object:
    if isinstance(item.shown, ObjectPrompt):
        prompt: ObjectPrompt | npt.NDArray[np.bool_] = item.shown
    elif item.shown.mask.any():
        prompt = item.shown.mask
    else:
        raise Fault(Kind.INVALID, "the key slice's mask is empty: it must show the object", param="objects")
    first, last = item.extent(slices)
    return Object(prompt, item.key_slice(), last - first + 1)
