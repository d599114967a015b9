"""The two engines that the contrastive families have: names, tensors, shapes."""

from __future__ import annotations

from serving.engines.engine import EngineSpec, TensorSpec
from serving.manifest import Manifest, engine_name

MAX_BATCH = 32


def specs(manifest: Manifest, max_batch: int = MAX_BATCH) -> dict[str, EngineSpec]:
    """part -> spec. `options` gives image_size (pixels) and embed_dim. Embeddings are the projections, not normalised."""
    side, width = int(manifest.options["image_size"]), int(manifest.options["embed_dim"])
    pixels = TensorSpec("pixels", "float32", (3, side, side))
    context = int(manifest.options.get("context_length", 77))
    tokens = TensorSpec("tokens", "int64", (-1,), ((2, min(16, context), context),))
    embedding = TensorSpec("embedding", "float32", (width,))
    return {
        "image_encoder": EngineSpec(engine_name(manifest.model, "image_encoder"), (pixels,), (embedding,), max_batch),
        "text_encoder": EngineSpec(engine_name(manifest.model, "text_encoder"), (tokens,), (embedding,), max_batch),
    }
