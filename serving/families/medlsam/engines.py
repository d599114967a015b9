"""MedLSAM's engines: where patches lie, what is kept of a support point, how much a patch is like it."""

from __future__ import annotations

from serving.engines.engine import EngineSpec, TensorSpec
from serving.families.medlsam.offsets import PATCH
from serving.manifest import Manifest, engine_name

POSITIONS = 10
"""Patches in one call for positions: those of one volume."""
CHANNELS = 96
"""Of the published checkpoint's features."""
KERNELS = {"coarse": 2, "middle": 4, "fine": 8}
"""Features of a support point -> voxels a side."""
_PATCH = TensorSpec("patch", "float32", (1, PATCH, PATCH, PATCH))
_POSITION = TensorSpec("position", "float32", (3,))
_SIMILARITY = TensorSpec("similarity", "float32", (PATCH, PATCH, PATCH))


def specs(manifest: Manifest) -> dict[str, EngineSpec]:
    """part -> spec. Patches are 0..1, (z, y, x)."""
    channels = int(manifest.options.get("channels", CHANNELS))
    kernels = tuple(TensorSpec(name, "float32", (channels, side, side, side)) for name, side in KERNELS.items())

    def name(part: str) -> str:
        return engine_name(manifest.model, part)

    return {
        "position": EngineSpec(name("position"), (_PATCH,), (_POSITION,), max_batch=POSITIONS),
        "describe": EngineSpec(name("describe"), (_PATCH,), (_POSITION, *kernels)),
        "refine": EngineSpec(name("refine"), (_PATCH, *kernels), (_SIMILARITY,)),
    }
