"""What plans are built for: tensors as `sam_engines` and `two_towers` have them, with larger batches."""

from __future__ import annotations

from serving.build.production import Profile
from serving.engines.engine import EngineSpec, TensorSpec


def _spec(name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], batch: int = 1) -> EngineSpec:
    return EngineSpec(name, inputs, outputs, max_batch=batch)


CELLS = 64 * 64
MAPS = (
    TensorSpec("x0", "float32", (CELLS, 256)), TensorSpec("k0", "float32", (8, 16, CELLS)),
    TensorSpec("v0", "float32", (8, CELLS, 16)), TensorSpec("q0", "float32", (8, CELLS, 16)),
)  # fmt: skip
SPECS = {
    "image_encoder": _spec("image_encoder", (TensorSpec("image", "float32", (3, 256, 256)),), MAPS, 64),
    "mask_decoder": _spec(
        "mask_decoder",
        (*MAPS, TensorSpec("points", "float32", (-1, -1, 2)), TensorSpec("labels", "int64", (-1, -1))),
        (
            TensorSpec("mask", "float32", (-1, 1, 256, 256)), TensorSpec("iou", "float32", (-1, 1)),
            TensorSpec("masks", "float32", (-1, 3, 256, 256)), TensorSpec("ious", "float32", (-1, 3)),
        ),
    ),
    "clip_image_encoder": _spec(
        "clip_image_encoder",
        (TensorSpec("pixels", "float32", (3, 224, 224)),),
        (TensorSpec("embedding", "float32", (512,)),),
        256,
    ),
}  # fmt: skip
"""As `sam_engines` and `two_towers` have them, with larger batches."""

PROFILES: dict[str, Profile] = {
    "image_encoder": {"image": ((1, 3, 256, 256), (4, 3, 256, 256), (64, 3, 256, 256))},
    "clip_image_encoder": {"pixels": ((1, 3, 224, 224), (64, 3, 224, 224), (256, 3, 224, 224))},
    "mask_decoder": {
        **{t.name: ((1, *t.shape),) * 3 for t in MAPS},
        "points": ((1, 1, 2, 2), (1, 1, 2, 2), (1, 64, 66, 2)),
        "labels": ((1, 1, 2), (1, 1, 2), (1, 64, 66)),
    },
}
