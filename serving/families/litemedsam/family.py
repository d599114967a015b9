"""LiteMedSAM's answers: those of a SAM-like model by its own procedure, on pictures and on the slices of volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.domain.request import Request
from serving.domain.volume import SegmentVolume, VolumeAnswer, VolumeObject
from serving.engines.engine import EngineSpec
from serving.families import promptable
from serving.families.family import Family, Tools
from serving.families.litemedsam import engines
from serving.families.litemedsam.postprocess import binary_mask
from serving.families.litemedsam.preprocess import PREPROCESSING_ID, SIDE_PX, prepare, scale
from serving.families.litemedsam.volume import LiteMedSamSlices
from serving.families.procedure import Procedure
from serving.families.promptable import Promptable
from serving.families.volume_answer import Tell
from serving.families.volume_answer import answer as answer_volume
from serving.imaging.volume import Volume
from serving.imaging.volumes import Slices
from serving.manifest import Manifest
from serving.telemetry.stages import Stages

PROCEDURE = Procedure(PREPROCESSING_ID, SIDE_PX, prepare, scale, binary_mask)


class LiteMedSam(Promptable):
    """One served LiteMedSAM. `walks`: it takes objects of a volume that are not followed, and their labels."""

    walks = True

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        super().__init__(manifest, tools, PROCEDURE, DECLARATION.specs(manifest))

    async def answer_volume(self, request: Request, stages: Stages, tell: Tell, volume: Volume | None = None) -> VolumeAnswer:
        """Masks on every slice, as upstream's loop gives them. Raises Fault."""
        parts = self._slice_parts()

        def on_slices(slices: Slices, objects: tuple[VolumeObject, ...]) -> LiteMedSamSlices:
            return LiteMedSamSlices(slices, objects, parts, self._tools, request, stages)

        return await answer_volume(request, self._tools, self._info, stages, tell, on_slices, volume)


class Declaration:
    """What LiteMedSAM is before any of its engines is built."""

    name = "litemedsam"
    pool = "adaptive"
    tasks: frozenset[type] = promptable.TASKS | {SegmentVolume}

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: image_encoder, mask_decoder, mask_refiner."""
        return engines.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where there is no Features store."""
        return LiteMedSam(manifest, tools)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Sides in pixels; objects in one decoder call (more are split, not refused)."""
        return promptable.limits(SIDE_PX)


DECLARATION = Declaration()
