"""MedCLIP (Wang et al. 2022): Swin-T or ResNet-50 beside Bio-ClinicalBERT. Keys as RyanWangZf/MedCLIP's `pytorch_model.bin`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serving.build.nets import resnet, swin
from serving.build.nets.bert import Bert, BertConfig
from serving.build.nets.fit import fit, scalar, shape, sized, under
from serving.errors import SetupError

LAYOUT = "a MedCLIP checkpoint"
IMAGE_SIZE, CONTEXT = 224, 77
LARGEST_SCALE = 4.6052
"""The logarithm of the temperature is clamped to 0..4.6052 (`modeling_medclip.py`)."""


class SwinTower(nn.Module):
    """Swin's pooled features, projected without bias."""

    def __init__(self, config: swin.SwinConfig, outputs: int) -> None:
        super().__init__()
        self.model = swin.Swin(config)
        self.projection_head = nn.Linear(self.model.out_width, outputs, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) f32 to projections (B, D) f32, not of unit length."""
        return self.projection_head(self.model(pixels))


class ResNetTower(nn.Module):
    """ResNet whose last layer is the projection."""

    def __init__(self, config: resnet.ResNetConfig) -> None:
        super().__init__()
        self.model = resnet.ResNet(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """As SwinTower."""
        return self.model(pixels)


class TextTower(nn.Module):
    """BERT read at all positions, padding included."""

    def __init__(self, config: BertConfig, outputs: int) -> None:
        super().__init__()
        self.model = Bert(config)
        self.projection_head = nn.Linear(config.width, outputs, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids (B, L) int64 padded with 0 to projections (B, D) f32, not of unit length.

        The mean over positions of the mean of the first, second and last layer. Nothing attends to padding, but the mean
        takes it in: the same text in a longer row gives another vector, as published.
        """
        states = self.model(tokens)
        return self.projection_head(torch.stack([states[0], states[1], states[-1]], 1).mean(2).mean(1))


@dataclass(frozen=True)
class MedClip:
    """Both towers in evaluation mode. `scale`: the factor on a cosine."""

    image_encoder: nn.Module
    text_encoder: TextTower
    image_size: int
    vocab_size: int
    embed_dim: int
    scale: float


def load(state: Mapping[str, Tensor], image_size: int = IMAGE_SIZE) -> MedClip:
    """Both towers in float32. BERT's pooler is not used and left out. Raises SetupError that names what does not fit."""
    state = swin.published(state)
    if rest := sorted(key for key in state if not key.startswith(("vision_model.", "text_model.")) and key != "logit_scale"):
        raise SetupError(f"this is not {LAYOUT}: {rest[0]} is unexpected")
    bert = BertConfig.of(state, "text_model.model.", LAYOUT)
    outputs = shape(state, "text_model.projection_head.weight", LAYOUT)[0]
    text = under(state, "text_model.", without=("model.pooler.", "embeddings.position_ids"))
    tower = fit(sized(lambda: TextTower(bert, outputs), LAYOUT), text, LAYOUT, "text_model.")
    scale = math.exp(min(max(scalar(state, "logit_scale", LAYOUT), 0.0), LARGEST_SCALE))
    return MedClip(_image_tower(state, image_size), tower, image_size, bert.vocab_size, outputs, scale)


def _image_tower(state: Mapping[str, Tensor], image_size: int) -> nn.Module:
    """Told by its first convolution: ResNet's is `model.conv1`."""
    prefix = "vision_model."
    if f"{prefix}model.conv1.weight" in state:
        config = resnet.ResNetConfig.of(state, f"{prefix}model.", LAYOUT)
        return fit(sized(lambda: ResNetTower(config), LAYOUT), under(state, prefix), LAYOUT, prefix)
    sizes = swin.SwinConfig.of(state, f"{prefix}model.", LAYOUT, image_size)
    outputs = shape(state, f"{prefix}projection_head.weight", LAYOUT)[0]
    return fit(sized(lambda: SwinTower(sizes, outputs), LAYOUT), under(state, prefix), LAYOUT, prefix)
