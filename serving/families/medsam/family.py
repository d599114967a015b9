"""MedSAM's and SAM's answers, by the procedure of the checkpoint's generation, on pictures and on the slices of volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.domain.volume import SegmentVolume
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
from serving.families.medsam.volume import FOLLOWING
from serving.families.procedure import Procedure
from serving.families.volume_slices import SlicedPromptable
from serving.manifest import Manifest

PROCEDURES: Mapping[str, Procedure] = {
    "sam": Procedure(LONGEST_SIDE_ID, SIDE_PX, longest_side, longest_side_scale, sam_mask),
    "april-2023": Procedure(LONGEST_SIDE_ID, SIDE_PX, longest_side, longest_side_scale, april_mask),
    JULY: Procedure(SQUASH_ID, SIDE_PX, squash, squash_scale, squash_mask),
}
"""Preprocessing, as a build records it -> procedure."""


class MedSam(SlicedPromptable):
    """One served MedSAM or SAM."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        super().__init__(manifest, tools, procedure(manifest), DECLARATION.specs(manifest), FOLLOWING)


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
    tasks: frozenset[type] = promptable.TASKS | {SegmentVolume}

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
