"""SigLIP (Zhai et al. 2023) with the state-dict keys of Hugging Face's SiglipModel: MedSigLIP's towers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.fit import count_blocks, fit, scalar, shape, sized, under
from serving.errors import SetupError

LAYOUT = "a SigLIP checkpoint in Hugging Face's layout"
EPS = 1e-6
HEAD_WIDTHS = {1152: 72}
"""Channels a head by tower width: SoViT-400m has 16 heads, the other sizes 64 channels each."""


def heads_of(width: int) -> int:
    """How many heads a tower has."""
    return max(1, width // HEAD_WIDTHS.get(width, 64))


class Mlp(nn.Module):
    """Two linear layers around GELU's tanh form."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) to (..., W)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Layer(nn.Module):
    """A pre-norm block without mask."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads_of(width)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.self_attn = nn.ModuleDict({f"{name}_proj": nn.Linear(width, width) for name in ("q", "k", "v", "out")})
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, W) to (B, L, W)."""
        seen = self.layer_norm1(x)
        projected = [self.self_attn[f"{name}_proj"](seen).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in "qkv"]
        mixed = F.scaled_dot_product_attention(*projected)
        x = x + self.self_attn["out_proj"](mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.layer_norm2(x))


class Head(nn.Module):
    """Attention pooling by one trained query, and a residual feed-forward."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads_of(width)
        self.probe = nn.Parameter(torch.zeros(1, 1, width))
        self.attention = nn.ModuleDict({"out_proj": nn.Linear(width, width)})
        self.attention.register_parameter("in_proj_weight", nn.Parameter(torch.zeros(3 * width, width)))
        self.attention.register_parameter("in_proj_bias", nn.Parameter(torch.zeros(3 * width)))
        self.layernorm = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, W) to (B, W)."""
        weights = self.attention.get_parameter("in_proj_weight").chunk(3)
        biases = self.attention.get_parameter("in_proj_bias").chunk(3)
        given = (self.probe.expand(x.shape[0], -1, -1), x, x)
        projected = [
            F.linear(value, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for value, weight, bias in zip(given, weights, biases, strict=True)
        ]
        pooled = self.attention["out_proj"](F.scaled_dot_product_attention(*projected).transpose(1, 2).flatten(2))
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]


class ImageTower(nn.Module):
    """Keys as under `vision_model.`."""

    def __init__(self, width: int, patch: int, tokens: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {"patch_embedding": nn.Conv2d(3, width, patch, patch), "position_embedding": nn.Embedding(tokens, width)}
        )
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Layer(width, hidden) for _ in range(layers))})
        self.post_layernorm = nn.LayerNorm(width, eps=EPS)
        self.head = Head(width, hidden)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) f32 to vectors (B, D) f32, not of unit length."""
        patches, positions = self.embeddings.values()
        x = patches(pixels).flatten(2).transpose(1, 2) + positions.weight
        for layer in self.encoder["layers"]:  # type: ignore[attr-defined]
            x = layer(x)
        return self.head(self.post_layernorm(x))


class TextTower(nn.Module):
    """Keys as under `text_model.`. Read at the last position, padding or not, as trained: rows are of the whole context."""

    def __init__(self, vocab: int, context: int, width: int, layers: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {"token_embedding": nn.Embedding(vocab, width), "position_embedding": nn.Embedding(context, width)}
        )
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Layer(width, hidden) for _ in range(layers))})
        self.final_layer_norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids (B, L) int64 to vectors (B, D) f32, not of unit length."""
        words, positions = self.embeddings.values()
        x = words(tokens) + positions.weight[: tokens.shape[1]]  # type: ignore[index]
        for layer in self.encoder["layers"]:  # type: ignore[attr-defined]
            x = layer(x)
        return self.head(self.final_layer_norm(x)[:, -1])


@dataclass(frozen=True)
class Siglip:
    """Both towers in evaluation mode. A score is sigmoid(scale x cosine + bias)."""

    image_encoder: ImageTower
    text_encoder: TextTower
    image_size: int
    context_length: int
    vocab_size: int
    embed_dim: int
    scale: float
    bias: float


def load(state: Mapping[str, Tensor]) -> Siglip:
    """Both towers in float32, their sizes from the shapes. Raises SetupError that names what does not fit."""
    known = ("vision_model.", "text_model.", "logit_scale", "logit_bias")
    if rest := sorted(key for key in state if not key.startswith(known)):
        raise SetupError(f"this is not {LAYOUT}: {rest[0]} is unexpected")
    vocab = shape(state, "text_model.embeddings.token_embedding.weight", LAYOUT)[0]
    context, width = shape(state, "text_model.embeddings.position_embedding.weight", LAYOUT)
    hidden = shape(state, "text_model.encoder.layers.0.mlp.fc1.weight", LAYOUT)[0]
    outputs, layers = shape(state, "text_model.head.weight", LAYOUT)[0], count_blocks(state, "text_model.encoder.layers.")
    text = sized(lambda: TextTower(vocab, context, width, layers, hidden, outputs), LAYOUT)
    wide, _, patch, _ = shape(state, "vision_model.embeddings.patch_embedding.weight", LAYOUT)
    tokens = shape(state, "vision_model.embeddings.position_embedding.weight", LAYOUT)[0]
    wide_hidden = shape(state, "vision_model.encoder.layers.0.mlp.fc1.weight", LAYOUT)[0]
    image_layers = count_blocks(state, "vision_model.encoder.layers.")
    image = sized(lambda: ImageTower(wide, patch, tokens, image_layers, wide_hidden), LAYOUT)
    ids = ("embeddings.position_ids",)
    return Siglip(
        fit(image, under(state, "vision_model.", without=ids), LAYOUT, "vision_model."),
        fit(text, under(state, "text_model.", without=ids), LAYOUT, "text_model."),
        math.isqrt(tokens) * patch,
        context,
        vocab,
        outputs,
        math.exp(scalar(state, "logit_scale", LAYOUT)),
        scalar(state, "logit_bias", LAYOUT),
    )
