"""What the recipes of two-tower models share: the parts, and the samples on which each build is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from serving.build import samples
from serving.build.export import Arrays, Part
from serving.build.parts import Parts


def two(
    image_encoder: nn.Module, text_encoder: nn.Module, side: int, texts: list[Arrays], options: dict[str, Any], lengths: bool
) -> Parts:
    """The two towers as engines. `texts`: ids to compare on, the whole context first; `lengths`: they may be shorter."""
    axes = {0: "b", 1: "n"} if lengths else {0: "b"}
    given = {"tokens": torch.from_numpy(texts[0]["tokens"])}
    made = {
        "image_encoder": Part(
            image_encoder, {"pixels": torch.rand(2, 3, side, side)}, {"pixels": {0: "b"}}, ("embedding",), "openvino"
        ),
        "text_encoder": Part(text_encoder, given, {"tokens": axes}, ("embedding",), "onnxruntime"),
    }
    images: list[Arrays] = [{"pixels": 4 * samples.squared(pixels, side) - 2} for pixels in samples.radiology()]
    return Parts(made, {"image_encoder": images, "text_encoder": texts}, options)


def padded_ids(rows: int, context: int, vocabulary: int) -> list[Arrays]:
    """Ids (rows, context) int64, the first row full and the others padded with 0; and the same cut to 8."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, vocabulary, (rows, context))
    for row in range(1, rows):
        tokens[row, max(2, 8 - row) :] = 0
    return [{"tokens": tokens}, {"tokens": np.ascontiguousarray(tokens[1:, :8])}]
