"""LiteMedSAM's engines: those of a SAM-like model, at 256 pixels."""

from __future__ import annotations

from serving.engines.engine import EngineSpec
from serving.families import sam_engines
from serving.families.litemedsam.preprocess import SIDE_PX
from serving.families.sam_engines import FEATURES as FEATURES
from serving.manifest import Manifest


def specs(manifest: Manifest) -> dict[str, EngineSpec]:
    """part -> spec."""
    return sam_engines.specs(manifest, SIDE_PX)
