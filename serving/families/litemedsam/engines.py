"""LiteMedSAM's engines: names, tensors, shapes."""

from __future__ import annotations

from serving.engines.engine import EngineSpec, TensorSpec
from serving.manifest import Manifest, engine_name

FEATURES = TensorSpec("features", "float32", (256, 64, 64))
ONE_IMAGE = TensorSpec("features", "float32", (1, 256, 64, 64))
SPARSE = TensorSpec("sparse", "float32", (-1, -1, 256))
LOGITS = TensorSpec("logits", "float32", (-1, 1, 256, 256))
MASKS = (
    TensorSpec("mask", "float32", (-1, 1, 256, 256)),
    TensorSpec("iou", "float32", (-1, 1)),
    TensorSpec("masks", "float32", (-1, 3, 256, 256)),
    TensorSpec("ious", "float32", (-1, 3)),
)


def specs(manifest: Manifest) -> dict[str, EngineSpec]:
    """part -> spec. Points are pixels of the 256-pixel model frame; labels -1 pad, 0, 1, 2 top-left, 3 bottom-right."""
    image = TensorSpec("image", "float32", (3, 256, 256))
    prompts = (TensorSpec("points", "float32", (-1, -1, 2)), TensorSpec("labels", "int64", (-1, -1)))
    return {
        "image_encoder": EngineSpec(engine_name(manifest.model, "image_encoder"), (image,), (FEATURES,), max_batch=4),
        "prompt_encoder": EngineSpec(engine_name(manifest.model, "prompt_encoder"), prompts, (SPARSE,)),
        "mask_decoder": EngineSpec(engine_name(manifest.model, "mask_decoder"), (ONE_IMAGE, SPARSE), MASKS),
        "mask_refiner": EngineSpec(engine_name(manifest.model, "mask_refiner"), (ONE_IMAGE, SPARSE, LOGITS), MASKS),
    }
