"""The engines of MedSAM and SAM: those of a SAM-like model, at 1024 pixels."""

from __future__ import annotations

from serving.engines.engine import EngineSpec
from serving.families import sam_engines
from serving.families.medsam.preprocess import SIDE_PX
from serving.manifest import Manifest


def specs(manifest: Manifest) -> dict[str, EngineSpec]:
    """part -> spec."""
    return sam_engines.specs(manifest, SIDE_PX)
