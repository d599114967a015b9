"""A SAM-like model on a volume's slices, each a picture of its own: an object's mask becomes its box on the next slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.prompt import ObjectPrompt
from serving.domain.request import Request
from serving.domain.volume import VolumeAnswer, VolumeObject
from serving.embeddings.aside import Aside
from serving.engines.engine import Engine, EngineSpec
from serving.families.encoded_slices import EncodedSlices
from serving.families.family import Tools
from serving.families.procedure import Procedure
from serving.families.promptable import Promptable
from serving.families.prompts import BOTTOM_RIGHT, OBJECTS_A_CALL, TOP_LEFT, Token, alike, check, tokens
from serving.families.sam_engines import decoder_call
from serving.families.volume_answer import Tell
from serving.families.volume_answer import answer as answer_volume
from serving.imaging.volume import Volume
from serving.imaging.volumes import Slices
from serving.manifest import Manifest
from serving.shm import Slot
from serving.telemetry.stages import Stages

Bools = npt.NDArray[np.bool_]
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Following:
    """How a model's masks lead from slice to slice: what belongs to its publication.

    `box`: an object's number from 0, its mask (rows, columns) and the slice's (width, height) in the model frame -> the next
    slice's box (x0, y0, x1, y1), pixels of the model frame, or None where the mask shows nothing. `anew`: such a slice is
    followed by the first prompt again, otherwise by its own.
    """

    box: Callable[[int, Bools, tuple[int, int]], Corners | None]
    anew: bool


@dataclass(frozen=True, eq=False)
class Spelled:
    """One object's prompt: its tokens in the model frame, and (256, 256) float32 logits or None."""

    tokens: tuple[Token, ...]
    logits: npt.NDArray[np.float32] | None = None


class SlicedPromptable(Promptable):
    """A SAM-like model that takes volumes too. `walks`: also objects of a volume that are not followed, and their labels."""

    walks = True

    def __init__(
        self,
        manifest: Manifest,
        tools: Tools,
        procedure: Procedure,
        specs: Mapping[str, EngineSpec],
        following: Following,
    ) -> None:
        super().__init__(manifest, tools, procedure, specs)
        self._following = following

    async def answer_volume(self, request: Request, stages: Stages, tell: Tell, volume: Volume | None = None) -> VolumeAnswer:
        """Masks on every slice, as the publication's loop gives them. Raises Fault."""
        aside = Aside(self._store.arena, self._tools.kept_features_bytes)

        def on_slices(slices: Slices, objects: tuple[VolumeObject, ...]) -> PromptableSlices:
            how = self._procedure, self._following, self._engines, aside
            return PromptableSlices(slices, objects, *how, self._tools, request, stages)

        return await answer_volume(request, self._tools, self._info, stages, tell, on_slices, volume)


class PromptableSlices(EncodedSlices):
    """Implements `families.volume_walk.SliceModel`."""

    def __init__(
        self,
        slices: Slices,
        objects: tuple[VolumeObject, ...],
        procedure: Procedure,
        following: Following,
        engines: Mapping[str, Engine],
        aside: Aside,
        tools: Tools,
        request: Request,
        stages: Stages,
    ) -> None:
        super().__init__(slices, procedure.prepare, engines["image_encoder"], aside, tools, request, stages)
        self._procedure, self._following, self._engines = procedure, following, engines
        self._scale = procedure.scale(self._frame.size_px)
        self._content_px = self._scale.content_px(self._frame.size_px)
        check([item.shown for item in objects if isinstance(item.shown, ObjectPrompt)])
        self._first = [self._spell(number, item) for number, item in enumerate(objects)]

    async def decode(self, index: int, features: Slot, prompts: Sequence[Spelled]) -> Sequence[Any]:
        """Logits (256, 256) float32 of each object; those with equally many tokens share a call."""
        said: list[Any] = [None] * len(prompts)
        for members in alike([(len(each.tokens), each.logits is not None) for each in prompts], OBJECTS_A_CALL):
            for row, logits in zip(members, await self._call(features, [prompts[n] for n in members]), strict=True):
                said[row] = logits
        return said

    def mask(self, said: Any) -> Bools:
        """Logits -> mask of the slice."""
        with self._stages.measure("postprocess"):
            return self._procedure.mask(said, self._content_px, self._frame.size_px)

    def first_prompt(self, number: int) -> Spelled:
        """The user's prompt; of a mask on the key slice, the box that it would give its neighbour."""
        return self._first[number]

    def next_prompt(self, number: int, mask: Bools) -> Spelled | None:
        """The box that the mask gives; None where it shows nothing."""
        found = self._following.box(number, mask, self._content_px)
        return None if found is None else _boxed(found)

    def prompt_behind_nothing(self, number: int, prompt: Spelled) -> Spelled:
        """The first prompt again, or the one that showed nothing: see `Following`."""
        return self._first[number] if self._following.anew else prompt

    def _spell(self, number: int, item: VolumeObject) -> Spelled:
        if isinstance(item.shown, ObjectPrompt):
            earlier = item.shown.logits
            return Spelled(tokens(item.shown, self._scale), None if earlier is None else earlier.values)
        width, height = self._content_px
        return self.next_prompt(number, item.shown.mask) or _boxed((0.0, 0.0, float(width), float(height)))

    async def _call(self, features: Slot, prompts: Sequence[Spelled]) -> npt.NDArray[np.float32]:
        table = np.asarray([each.tokens for each in prompts], np.float64)
        earlier = [each.logits for each in prompts if each.logits is not None]
        held = np.stack(earlier)[:, None].astype(np.float32) if earlier else None
        part, given = decoder_call(table[..., :2].astype(np.float32), table[..., 2].astype(np.int64), held)
        request, timing = self._request, self._stages.timing("decode_mask")
        out = await self._engines[part].infer(
            given, request.deadline, outputs=("mask",), priority=request.priority, slot=features, timing=timing
        )
        logits: npt.NDArray[np.float32] = out["mask"][0][:, 0]
        return logits


def _boxed(corners: Corners) -> Spelled:
    left, top, right, bottom = corners
    return Spelled(((left, top, TOP_LEFT), (right, bottom, BOTTOM_RIGHT)))
