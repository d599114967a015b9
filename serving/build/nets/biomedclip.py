"""BiomedCLIP (Zhang et al. 2023): timm's ViT beside PubMedBERT. Keys as open_clip's `open_clip_pytorch_model.bin`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.bert import Bert, BertConfig
from serving.build.nets.fit import count_blocks, fit, scalar, shape, sized, under
from serving.errors import SetupError

LAYOUT = "a BiomedCLIP checkpoint in open_clip's layout"
CONTEXT = 256
EPS = 1e-6
HEAD_WIDTH = 64


class Block(nn.Module):
    """timm's pre-norm block: fused q, k and v, exact GELU."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, W) to (B, L, W)."""
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.attn["proj"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Trunk(nn.Module):
    """ViT (Dosovitskiy et al. 2021), read at its class token."""

    def __init__(self, width: int, patch: int, tokens: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.patch = patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.ModuleList(Block(width, hidden, max(1, width // HEAD_WIDTH)) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) f32 to (B, W) f32."""
        patches = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class ImageTower(nn.Module):
    """Keys as under `visual.`."""

    def __init__(self, trunk: Trunk, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.ModuleDict({"proj": nn.Linear(width, outputs, bias=False)})

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) f32 to projections (B, D) f32, not of unit length."""
        return self.head["proj"](self.trunk(pixels))


class TextTower(nn.Module):
    """Keys as under `text.`: PubMedBERT's last hidden state at [CLS], through two linear layers without biases."""

    def __init__(self, config: BertConfig, hidden: int, outputs: int) -> None:
        super().__init__()
        self.transformer = Bert(config)
        layers = nn.Linear(config.width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, outputs, bias=False)
        self.proj = nn.Sequential(*layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids (B, L) int64 padded with 0, which nothing attends to -> projections (B, D) f32, not of unit length."""
        return self.proj(self.transformer(tokens)[-1][:, 0])


@dataclass(frozen=True)
class BiomedClip:
    """Both towers in evaluation mode. `scale`: the factor on a cosine."""

    image_encoder: ImageTower
    text_encoder: TextTower
    image_size: int
    vocab_size: int
    embed_dim: int
    scale: float


def load(state: Mapping[str, Tensor]) -> BiomedClip:
    """Both towers in float32, their sizes from the shapes. Raises SetupError that names what does not fit."""
    bert = BertConfig.of(state, "text.transformer.", LAYOUT)
    hidden, outputs = shape(state, "text.proj.0.weight", LAYOUT)[0], shape(state, "text.proj.2.weight", LAYOUT)[0]
    text = under(state, "text.", without=("transformer.pooler.", "embeddings.position_ids"))
    text_tower = fit(sized(lambda: TextTower(bert, hidden, outputs), LAYOUT), text, LAYOUT, "text.")
    image_tower = fit(sized(lambda: _image_tower(state), LAYOUT), under(state, "visual."), LAYOUT, "visual.")
    if rest := sorted(key for key in state if not key.startswith(("visual.", "text.")) and key != "logit_scale"):
        raise SetupError(f"this is not {LAYOUT}: {rest[0]} is unexpected")
    scale = math.exp(scalar(state, "logit_scale", LAYOUT))
    trunk = image_tower.trunk
    side = math.isqrt(trunk.pos_embed.shape[1] - 1) * trunk.patch
    return BiomedClip(image_tower, text_tower, side, bert.vocab_size, outputs, scale)


def _image_tower(state: Mapping[str, Tensor]) -> ImageTower:
    width, _, patch, _ = shape(state, "visual.trunk.patch_embed.proj.weight", LAYOUT)
    tokens = shape(state, "visual.trunk.pos_embed", LAYOUT)[1]
    hidden = shape(state, "visual.trunk.blocks.0.mlp.fc1.weight", LAYOUT)[0]
    trunk = Trunk(width, patch, tokens, count_blocks(state, "visual.trunk.blocks."), hidden)
    return ImageTower(trunk, width, shape(state, "visual.head.proj.weight", LAYOUT)[0])
