"""MedSAM2's answers: masks on one picture, as SAM 2's image predictor gives them, and through a volume."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.prompt import ObjectPrompt
from serving.domain.request import Request
from serving.domain.volume import SegmentVolume, VolumeAnswer, VolumeObject
from serving.embeddings.aside import Aside
from serving.embeddings.store import Features
from serving.engines.engine import EngineSpec
from serving.families import promptable
from serving.families.family import Family, Tools
from serving.families.medsam2 import engines
from serving.families.medsam2.postprocess import binary_mask, steady
from serving.families.medsam2.preprocess import prepare, preprocessing_id, scale
from serving.families.medsam2.prompts import OBJECTS_A_CALL, group, to_travel
from serving.families.medsam2.volume import MedSam2Slices
from serving.families.procedure import Procedure
from serving.families.promptable import Promptable
from serving.families.prompts import Group
from serving.families.sam_engines import Call
from serving.families.volume_answer import Tell
from serving.families.volume_answer import answer as answer_volume
from serving.imaging.volume import Volume
from serving.imaging.volumes import Slices
from serving.manifest import Manifest
from serving.telemetry.stages import Stages

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]


def procedure(side_px: int) -> Procedure:
    """Of a model for square pictures of `side_px`."""

    def mask(logits: Floats, content_px: Size, size_px: Size) -> npt.NDArray[np.bool_]:
        del content_px  # the whole square
        return binary_mask(logits, size_px)

    by_side = partial(prepare, side_px=side_px), partial(scale, side_px=side_px)
    return Procedure(preprocessing_id(side_px), side_px, *by_side, mask, to_travel)


class MedSam2(Promptable):
    """One served MedSAM2."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        super().__init__(manifest, tools, procedure(engines.image_size(manifest)), DECLARATION.specs(manifest))

    async def answer_volume(self, request: Request, stages: Stages, tell: Tell, volume: Volume | None = None) -> VolumeAnswer:
        """Masks on every slice, by propagation in both directions. Raises Fault."""
        aside = Aside(self._store.arena, self._tools.kept_features_bytes)
        side_px = self._procedure.side_px

        def on_slices(slices: Slices, objects: tuple[VolumeObject, ...]) -> MedSam2Slices:
            return MedSam2Slices(slices, objects, self._engines, aside, side_px, self._tools, request, stages)

        return await answer_volume(request, self._tools, self._info, stages, tell, on_slices, volume)

    def _group(self, objects: tuple[ObjectPrompt, ...], size_px: Size) -> tuple[Group, ...]:
        return group(objects, size_px, self._procedure.side_px)

    def _call(self, members: Group) -> Call:
        given: dict[str, npt.NDArray[Any]] = {"points": members.points[None], "labels": members.labels[None]}
        if members.logits is None:
            return "mask_decoder", given
        return "mask_refiner", {**given, "logits": members.logits[None]}

    async def _decode(
        self, members: Group, features: Features, multimask: bool, request: Request, stages: Stages
    ) -> tuple[Floats, Floats]:
        """Of the engine's four masks the three candidates with `multimask`, else the one that answers a steady prompt."""
        out = await self._ask(members, features, ("masks", "ious"), request, stages)
        logits, scores = out["masks"][0], out["ious"][0]
        if multimask:
            return logits[:, 1:], scores[:, 1:]
        chosen = [steady(four, ious) for four, ious in zip(logits, scores, strict=True)]
        rows = np.arange(len(chosen))
        return logits[rows, chosen][:, None], scores[rows, chosen][:, None]


class Declaration:
    """What MedSAM2 is before any of its engines is built."""

    name = "medsam2"
    pool = "adaptive"
    tasks: frozenset[type] = promptable.TASKS | {SegmentVolume}

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: `engines.PARTS`."""
        return engines.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where there is no Features store."""
        return MedSam2(manifest, tools)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Sides in pixels; objects in one decoder call (more are split, not refused)."""
        return promptable.limits(engines.image_size(manifest), OBJECTS_A_CALL)


DECLARATION = Declaration()
