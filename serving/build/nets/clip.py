"""CLIP's two towers (the ViT variants) with the state-dict keys of OpenAI's checkpoints.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision". Hugging Face's layout is
converted by `clip_layout`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.clip_layout import StateDict, from_hugging_face, is_hugging_face
from serving.build.nets.fit import count_blocks, differences
from serving.errors import SetupError

__all__ = ["Clip", "ClipConfig", "ImageEncoder", "TextEncoder", "create", "from_hugging_face", "is_hugging_face", "load"]

SCALARS = ("input_resolution", "context_length", "vocab_size")
HEAD_WIDTH = 64


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of both towers. `image_size` and `patch` in pixels; the others are counts or channels."""

    embed_dim: int
    image_size: int
    patch: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int
    text_heads: int

    @classmethod
    def from_state_dict(cls, sd: StateDict, *, vision_heads: int | None = None, text_heads: int | None = None) -> ClipConfig:
        """Read the sizes off a state dict in OpenAI's layout; heads are width / 64 unless given. Raises SetupError."""
        if "visual.layer1.0.conv1.weight" in sd:
            raise SetupError("this checkpoint is a CLIP ResNet, which is not supported: use a ViT variant such as ViT-B/32")
        try:
            conv, positions = sd["visual.conv1.weight"].shape, sd["visual.positional_embedding"].shape
            context, vocab = sd["positional_embedding"].shape, sd["token_embedding.weight"].shape
            embed = sd["text_projection"].shape
        except KeyError as exc:
            raise SetupError(f"this is not a CLIP ViT checkpoint: it has no tensor named {exc.args[0]}") from exc
        return cls(
            embed_dim=embed[1],
            image_size=math.isqrt(positions[0] - 1) * conv[-1],
            patch=conv[-1],
            vision_width=conv[0],
            vision_layers=count_blocks(sd, "visual.transformer.resblocks."),
            vision_heads=vision_heads or max(1, conv[0] // HEAD_WIDTH),
            context_length=context[0],
            vocab_size=vocab[0],
            text_width=context[1],
            text_layers=count_blocks(sd, "transformer.resblocks."),
            text_heads=text_heads or max(1, context[1] // HEAD_WIDTH),
        )


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the activation that OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention with one fused input projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width).normal_(std=width**-0.5))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, W) to (B, L, W). `mask`: (L, L), added to the scores; None: every token sees every token."""
        batch, length, width = x.shape
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = projected.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers, four times as wide in the middle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGELU()
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) to (..., W)."""
        out: Tensor = self.c_proj(self.gelu(self.c_fc(x)))
        return out


class Block(nn.Module):
    """Pre-norm residual attention block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, W) to (B, L, W)."""
        x = x + self.attn(self.ln_1(x), mask)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, W) to (B, L, W)."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


class ImageEncoder(nn.Module):
    """The vision tower: keys as under `visual.` in OpenAI's layout."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width, tokens = config.vision_width, (config.image_size // config.patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.vision_layers, config.vision_heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, config.embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) f32 to projections (B, D) f32, not of unit length."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        x = self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding)
        out: Tensor = self.ln_post(self.transformer(x)[:, 0]) @ self.proj
        return out


class TextEncoder(nn.Module):
    """The text tower: keys as at the top of OpenAI's layout."""

    causal: Tensor

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width, length = config.text_width, config.context_length
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(length, width))
        self.transformer = Transformer(width, config.text_layers, config.text_heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, config.embed_dim))
        self.register_buffer("causal", torch.full((length, length), -math.inf).triu(1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids (B, L) int64, L <= context, to projections (B, D) f32, not of unit length.

        The text is read at its end token, the highest id. No token sees a later one, so cutting padding off is exact.
        """
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x, self.causal[:length, :length]))
        end = tokens.argmax(-1)[:, None, None].expand(-1, 1, x.shape[-1])
        out: Tensor = x.gather(1, end).squeeze(1) @ self.text_projection
        return out


@dataclass(frozen=True)
class Clip:
    """A loaded checkpoint, both towers in evaluation mode. `logit_scale`: as stored, the logarithm of the factor."""

    config: ClipConfig
    image_encoder: ImageEncoder
    text_encoder: TextEncoder
    logit_scale: float

    @property
    def scale(self) -> float:
        """The factor on a cosine that makes a logit."""
        return math.exp(self.logit_scale)

    def state_dict(self) -> dict[str, Tensor]:
        """Back to OpenAI's layout."""
        visual = {f"visual.{key}": value for key, value in self.image_encoder.state_dict().items()}
        return {**visual, **self.text_encoder.state_dict(), "logit_scale": torch.tensor(self.logit_scale)}


def create(config: ClipConfig, logit_scale: float = math.log(1 / 0.07)) -> Clip:
    """New towers with random weights (torch's global generator), in evaluation mode."""
    return Clip(config, ImageEncoder(config).eval(), TextEncoder(config).eval(), logit_scale)


def load(sd: Mapping[str, Tensor], *, vision_heads: int | None = None, text_heads: int | None = None) -> Clip:
    """Both towers, in f32, of a state dict in OpenAI's layout.

    Raises SetupError that names the first tensors which are missing, unexpected or of another shape.
    """
    tensors = {key: value.float() for key, value in sd.items() if key not in SCALARS}
    config = ClipConfig.from_state_dict(tensors, vision_heads=vision_heads, text_heads=text_heads)
    clip = create(config)
    if found := differences(clip.state_dict(), tensors):
        raise SetupError(f"this checkpoint does not fit CLIP's ViT layout: {'; '.join(found[:3])}")
    image = {key.removeprefix("visual."): v for key, v in tensors.items() if key.startswith("visual.")}
    clip.image_encoder.load_state_dict(image)
    text = {key: v for key, v in tensors.items() if not key.startswith("visual.") and key != "logit_scale"}
    clip.text_encoder.load_state_dict(text)
    return Clip(config, clip.image_encoder, clip.text_encoder, float(tensors["logit_scale"]))
