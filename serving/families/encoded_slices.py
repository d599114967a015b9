"""A volume's slices as a SAM-like model sees them: each prepared and encoded once, its Features in a slot of the arena."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from serving.domain.image import Image
from serving.domain.request import Request
from serving.domain.volume import SegmentVolume
from serving.embeddings.aside import Aside
from serving.engines.engine import Engine
from serving.families.family import Tools
from serving.families.procedure import ModelInput
from serving.imaging.volumes import Slices
from serving.shm import Slot
from serving.telemetry.stages import Stages


class EncodedSlices:
    """The half of `families.volume_walk.SliceModel` that does not depend on how objects are followed."""

    def __init__(
        self,
        slices: Slices,
        prepare: Callable[[Image], ModelInput],
        image_encoder: Engine,
        aside: Aside,
        tools: Tools,
        request: Request,
        stages: Stages,
    ) -> None:
        assert isinstance(request.task, SegmentVolume)
        self._slices, self._prepare, self._image_encoder, self._aside = slices, prepare, image_encoder, aside
        self._tools, self._request, self._stages = tools, request, stages
        self._frame = slices.frame.slice_frame(request.task.axis)

    async def encode(self, index: int) -> Slot:
        """A slot with the slice's Features."""
        return await self._aside.get(index, partial(self._fill, index), self._request.deadline)

    def done(self, index: int, features: Slot, again: bool) -> None:
        """Give the slot back."""
        self._aside.done(index, features, again)

    async def _fill(self, index: int, slot: Slot) -> None:
        given = await self._tools.run(partial(self._prepared, index))
        request, timing = self._request, self._stages.timing("encode")
        await self._image_encoder.infer(
            {"image": given.tensor}, request.deadline, priority=request.priority, slot=slot, timing=timing
        )

    def _prepared(self, index: int) -> ModelInput:
        with self._stages.measure("preprocess"):
            return self._prepare(Image(self._slices.pixels(index), self._frame))
