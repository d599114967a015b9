"""MedSAM2 on a volume's slices: each object followed from its key slice to both ends by what the model remembers of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.prompt import ObjectPrompt
from serving.domain.request import Request
from serving.domain.volume import SegmentVolume, VolumeObject
from serving.embeddings.aside import Aside
from serving.engines.engine import Engine
from serving.errors import Fault, Kind
from serving.families.encoded_slices import EncodedSlices
from serving.families.family import Tools
from serving.families.medsam2.postprocess import binary_mask
from serving.families.medsam2.preprocess import prepare
from serving.families.medsam2.prompts import check
from serving.families.medsam2.propagate import Object, Propagation
from serving.imaging.volumes import Slices
from serving.shm import Slot
from serving.telemetry.stages import Stages


class MedSam2Slices(EncodedSlices):
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
        seen = partial(prepare, side_px=side_px)
        super().__init__(slices, seen, engines["image_encoder"], aside, tools, request, stages)
        assert isinstance(request.task, SegmentVolume)
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


def _object(item: VolumeObject, slices: int) -> Object:
    if isinstance(item.shown, ObjectPrompt):
        prompt: ObjectPrompt | npt.NDArray[np.bool_] = item.shown
    elif item.shown.mask.any():
        prompt = item.shown.mask
    else:
        raise Fault(Kind.INVALID, "the key slice's mask is empty: it must show the object", param="objects")
    first, last = item.extent(slices)
    return Object(prompt, item.key_slice(), last - first + 1)
