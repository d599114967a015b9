"""LiteMedSAM's answers: those of a SAM-like model by its own procedure, on pictures and on the slices of volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.domain.volume import SegmentVolume
from serving.engines.engine import EngineSpec
from serving.families import promptable
from serving.families.family import Family, Tools
from serving.families.litemedsam import engines
from serving.families.litemedsam.postprocess import binary_mask
from serving.families.litemedsam.preprocess import PREPROCESSING_ID, SIDE_PX, prepare, scale
from serving.families.litemedsam.volume import FOLLOWING
from serving.families.procedure import Procedure
from serving.families.volume_slices import SlicedPromptable
from serving.manifest import Manifest

PROCEDURE = Procedure(PREPROCESSING_ID, SIDE_PX, prepare, scale, binary_mask)


class LiteMedSam(SlicedPromptable):
    """One served LiteMedSAM."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        super().__init__(manifest, tools, PROCEDURE, DECLARATION.specs(manifest), FOLLOWING)


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
