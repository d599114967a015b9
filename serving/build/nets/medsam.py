"""SAM ViT-B, L, H and MedSAM (a fine-tuned ViT-B): any published layout -> the model, loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from serving.build.nets.fit import differences
from serving.build.nets.sam_layout import original
from serving.build.nets.sam_parts import Sam
from serving.build.nets.sam_vit import ImageEncoder, Sizes, sizes_of
from serving.errors import SetupError

NAMED = 3
"""Differences that an error names."""


class SamVit(Sam):
    """SAM with a ViT: 314 tensors at ViT-B. `sizes`: of its image encoder."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(ImageEncoder(sizes), sizes.image_size)
        self.sizes = sizes


def load(checkpoint: Mapping[str, Any]) -> SamVit:
    """The model of a checkpoint in eval mode, float32: the original's keys, a training wrapper's, or Hugging Face's SamModel.

    It holds the checkpoint's own tensors where they are float32, no copies: a ViT-H has 2.6 GB of them. Raises SetupError that
    names the first keys or shapes that differ.
    """
    state = original(checkpoint)
    with torch.device("meta"):
        model = SamVit(sizes_of(state))
    wrong = differences(model.state_dict(), state)
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise SetupError(f"the checkpoint is not SAM's: {', '.join(wrong[:NAMED])}{more}")
    model.load_state_dict(state, assign=True)
    return model.eval()
