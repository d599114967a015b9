"""The engines of a SAM-like model: image encoder, mask decoder, mask refiner; names, tensors, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from serving.engines.engine import EngineSpec, TensorSpec
from serving.families.prompts import OBJECTS_A_CALL
from serving.manifest import Manifest, engine_name

CELLS = 64 * 64
FEATURES = (
    TensorSpec("x0", "float32", (CELLS, 256)),
    TensorSpec("k0", "float32", (8, 16, CELLS)),
    TensorSpec("v0", "float32", (8, CELLS, 16)),
    TensorSpec("q0", "float32", (8, CELLS, 16)),
)
"""One image: the encoder's output with its dense prompt, and the first cross-attentions' keys, values and queries of it."""

OBJECTS_AXIS = 1
"""Every tensor below is one image's (leading axis 1), then its objects."""
OBJECTS, TOKENS = (1, 1, OBJECTS_A_CALL), (2, 2, 66)
"""Least, usual and most: objects of a call; tokens of an object (a box's two corners; at most 64 clicks with them)."""
POINTS = TensorSpec("points", "float32", (-1, -1, 2), (OBJECTS, TOKENS))
LABELS = TensorSpec("labels", "int64", (-1, -1), (OBJECTS, TOKENS))
LOGITS = TensorSpec("logits", "float32", (-1, 1, 256, 256), (OBJECTS,))
EARLIER = TensorSpec("earlier", "float32", (-1,), (OBJECTS,))
"""1 for an object whose logits are an earlier answer's, 0 for one that has none."""
MASKS = (
    TensorSpec("mask", "float32", (-1, 1, 256, 256)),
    TensorSpec("iou", "float32", (-1, 1)),
    TensorSpec("masks", "float32", (-1, 3, 256, 256)),
    TensorSpec("ious", "float32", (-1, 3)),
)


ENCODER_BATCH = 4
"""Images in one encoder call, on a GPU."""

FOLDED_TOKENS = 30
"""Most tokens of an object for which the folded decoder is the cheaper graph (docs/decisions/0030)."""

Call = tuple[str, dict[str, npt.NDArray[Any]]]


def decoder_call(
    points: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32] | None
) -> Call:
    """The engine for one call on one image's objects, mask_decoder or mask_refiner, and what it is given.

    `points` (P, N, 2), `labels` (P, N); `logits` (P, 1, 256, 256) of earlier answers, or None. Earlier answers need the
    refiner. Many tokens go to it because SAM's own decoder costs less there than the folded one; their masks are the same.
    """
    given: dict[str, npt.NDArray[Any]] = {"points": points[None], "labels": labels[None]}
    if logits is None and points.shape[1] <= FOLDED_TOKENS:
        return "mask_decoder", given
    objects = len(points)
    given["logits"] = np.zeros((1, objects, 1, 256, 256), np.float32) if logits is None else logits[None]
    given["earlier"] = np.full((1, objects), logits is not None, np.float32)
    return "mask_refiner", given


def specs(manifest: Manifest, side_px: int) -> dict[str, EngineSpec]:
    """part -> spec. Points are pixels of the model frame of `side_px`; labels -1 pad, 0, 1, 2 top-left, 3 bottom-right."""
    image = TensorSpec("image", "float32", (3, side_px, side_px))

    def spec(part: str, inputs: tuple[TensorSpec, ...], reads: tuple[TensorSpec, ...]) -> EngineSpec:
        return EngineSpec(engine_name(manifest.model, part), inputs, MASKS, reads=reads, join=OBJECTS_AXIS)

    encoder = engine_name(manifest.model, "image_encoder")
    return {
        "image_encoder": EngineSpec(encoder, (image,), (), max_batch=ENCODER_BATCH, writes=FEATURES),
        "mask_decoder": spec("mask_decoder", (POINTS, LABELS), FEATURES),
        "mask_refiner": spec("mask_refiner", (POINTS, LABELS, LOGITS, EARLIER), FEATURES[:1]),
    }
