"""MedSAM's and SAM's answers: those of a SAM-like model, by the procedure of the checkpoint's generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.domain.request import Request
from serving.domain.volume import VolumeAnswer, VolumeObject
from serving.engines.engine import EngineSpec
from serving.errors import SetupError
from serving.families import promptable
from serving.families.family import Family, Tools
from serving.families.medsam import engines
from serving.families.medsam.postprocess import april_mask, sam_mask, squash_mask
from serving.families.medsam.preprocess import (
    JULY,
    LONGEST_SIDE_ID,
    SIDE_PX,
    SQUASH_ID,
    longest_side,
    longest_side_scale,
    squash,
    squash_scale,
)
from serving.families.procedure import Procedure
from serving.families.promptable import Promptable
from serving.families.sam_slices import SamSlices
from serving.families.volume_answer import Tell
from serving.families.volume_answer import answer as answer_volume
from serving.imaging.volume import Volume
from serving.imaging.volumes import Slices
from serving.manifest import Manifest
from serving.telemetry.stages import Stages

PROCEDURES: Mapping[str, Procedure] = {
    "sam": Procedure(LONGEST_SIDE_ID, SIDE_PX, longest_side, longest_side_scale, sam_mask),
    "april-2023": Procedure(LONGEST_SIDE_ID, SIDE_PX, longest_side, longest_side_scale, april_mask),
    JULY: Procedure(SQUASH_ID, SIDE_PX, squash, squash_scale, squash_mask),
}
"""Preprocessing, as a build records it -> procedure."""


class MedSam(Promptable):
    """One served MedSAM or SAM. `walks`: it takes the boxes that another model found on a volume's slices, and their labels.

    It follows nothing from slice to slice, so that volumes are not among its tasks.
    """

    walks = True

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        super().__init__(manifest, tools, procedure(manifest), DECLARATION.specs(manifest))

    async def answer_volume(self, request: Request, stages: Stages, tell: Tell, volume: Volume | None = None) -> VolumeAnswer:
        """Masks of objects that are shown on each of their slices. Raises Fault."""
        parts = self._slice_parts()

        def on_slices(slices: Slices, objects: tuple[VolumeObject, ...]) -> SamSlices:
            return SamSlices(slices, objects, parts, self._tools, request, stages)

        return await answer_volume(request, self._tools, self._info, stages, tell, on_slices, volume)


def procedure(manifest: Manifest) -> Procedure:
    """Of a built model. Raises SetupError where its record names none."""
    name = str(manifest.options.get("preprocessing", ""))
    if name not in PROCEDURES:
        raise SetupError(f"model {manifest.model} names no preprocessing: build it again with `medserve models build`")
    return PROCEDURES[name]


class Declaration:
    """What MedSAM and SAM are before any of their engines is built."""

    name = "medsam"
    pool = "adaptive"
    tasks: frozenset[type] = promptable.TASKS

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: image_encoder, mask_decoder, mask_refiner."""
        return engines.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where there is no Features store, or no known preprocessing."""
        return MedSam(manifest, tools)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Sides in pixels; objects in one decoder call (more are split, not refused); the preprocessing's name."""
        return {**promptable.limits(SIDE_PX), "preprocessing": str(manifest.options.get("preprocessing", ""))}


DECLARATION = Declaration()
