"""Swin Transformer (Liu et al. 2021) with the state-dict keys of Hugging Face's SwinModel, its average pooling at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.fit import count_blocks, shape
from serving.errors import SetupError

EPS = 1e-5
MASKED = -100.0
"""Added to the scores of tokens that the cyclic shift brought together, as upstream."""
RENAMED = (
    (".attention.q_proj.", ".attention.self.query."),
    (".attention.k_proj.", ".attention.self.key."),
    (".attention.v_proj.", ".attention.self.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".attention.relative_position_bias.", ".attention.self."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)
"""Names in memory of transformers 5 -> names in published checkpoints."""


@dataclass(frozen=True)
class SwinConfig:
    """`image_size`, `patch` and `window` in pixels and tokens; blocks and heads of each stage."""

    image_size: int
    patch: int
    width: int
    window: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str, layout: str, image_size: int) -> SwinConfig:
        """Read off the tensors below a prefix, which do not tell the image's size. Raises SetupError."""
        width, _, patch, _ = shape(state, f"{prefix}embeddings.patch_embeddings.projection.weight", layout)
        stages = range(count_blocks(state, f"{prefix}encoder.layers."))
        table = "blocks.0.attention.self.relative_position_bias_table"
        tables = [shape(state, f"{prefix}encoder.layers.{n}.{table}", layout) for n in stages]
        return cls(
            image_size,
            patch,
            width,
            (math.isqrt(tables[0][0]) + 1) // 2,
            tuple(count_blocks(state, f"{prefix}encoder.layers.{n}.blocks.") for n in stages),
            tuple(heads for _, heads in tables),
        )


def published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layout of published checkpoints, whichever it was. The index of relative positions, a constant, is left out."""
    out = {}
    for key, value in state.items():
        for new, old in RENAMED:
            key = key.replace(new, old)
        if not key.endswith("relative_position_index"):
            out[key] = value
    return out


class Block(nn.Module):
    """Attention within windows of (window x window) tokens, shifted by `shift`, and a feed-forward, both pre-norm."""

    mask: Tensor
    index: Tensor

    def __init__(self, width: int, heads: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.side, self.window, self.shift = heads, side, window, shift
        self.layernorm_before = nn.LayerNorm(width, eps=EPS)
        own = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        own.register_parameter("relative_position_bias_table", nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads)))
        self.attention = nn.ModuleDict({"self": own, "output": nn.ModuleDict({"dense": nn.Linear(width, width)})})
        self.layernorm_after = nn.LayerNorm(width, eps=EPS)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = nn.ModuleDict({"dense": nn.Linear(4 * width, width)})
        self.register_buffer("index", _relative_index(window), persistent=False)
        self.register_buffer("mask", _mask(side, window, shift), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, S, W) to (B, S, S, W)."""
        seen = self.layernorm_before(x)
        if self.shift:
            seen = torch.roll(seen, (-self.shift, -self.shift), (1, 2))
        seen = self._attend(seen)
        if self.shift:
            seen = torch.roll(seen, (self.shift, self.shift), (1, 2))
        x = x + seen
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](self.layernorm_after(x))))

    def _attend(self, x: Tensor) -> Tensor:
        count, window, width = self.side // self.window, self.window, x.shape[-1]
        tokens = x.reshape(-1, count, window, count, window, width).transpose(2, 3).reshape(-1, count**2, window**2, width)
        own = self.attention["self"]
        assert isinstance(own, nn.ModuleDict)
        q, k, v = (own[name](tokens).unflatten(-1, (self.heads, -1)).transpose(2, 3) for name in ("query", "key", "value"))
        bias = own.get_parameter("relative_position_bias_table")[self.index].permute(2, 0, 1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads) + bias + self.mask[:, None]
        mixed = (scores.softmax(-1) @ v).transpose(2, 3).flatten(3)
        out = self.attention["output"]["dense"](mixed)  # type: ignore[index]
        out = out.reshape(-1, count, count, window, window, width).transpose(2, 3)
        return out.reshape(-1, self.side, self.side, width)


class Merge(nn.Module):
    """Four neighbours to one token, twice as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, S, W) to (B, S / 2, S / 2, 2 W)."""
        return self.reduction(self.norm(torch.cat([x[:, row::2, col::2] for col in (0, 1) for row in (0, 1)], -1)))


class Stage(nn.Module):
    """Blocks, every second one shifted, and a merge except in the last stage."""

    def __init__(self, width: int, depth: int, heads: int, side: int, window: int, last: bool) -> None:
        super().__init__()
        if side % window:
            raise SetupError(f"a Swin stage of {side} tokens does not divide into windows of {window}")
        shift = window // 2 if side > window else 0
        self.blocks = nn.ModuleList(Block(width, heads, side, window, shift * (n % 2)) for n in range(depth))
        self.downsample = None if last else Merge(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, S, W) to the next stage's input."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class Swin(nn.Module):
    """Normalised pixels -> pooled features."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        width, side, count = config.width, config.image_size // config.patch, len(config.depths)
        self.embeddings = nn.ModuleDict(
            {
                "patch_embeddings": nn.ModuleDict({"projection": nn.Conv2d(3, width, config.patch, config.patch)}),
                "norm": nn.LayerNorm(width),
            }
        )
        stages = (
            Stage(width << n, config.depths[n], config.heads[n], side >> n, config.window, n == count - 1) for n in range(count)
        )
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(stages)})
        self.out_width = width << (count - 1)
        self.layernorm = nn.LayerNorm(self.out_width, eps=EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) f32 to the mean over the last stage's tokens, (B, W) f32."""
        patches = self.embeddings["patch_embeddings"]["projection"](pixels)  # type: ignore[index]
        x = self.embeddings["norm"](patches.permute(0, 2, 3, 1))
        for stage in self.encoder["layers"]:  # type: ignore[attr-defined]
            x = stage(x)
        return self.layernorm(x).mean((1, 2))


def _relative_index(window: int) -> Tensor:
    """(w * w, w * w) int64: for each pair of tokens in a window the row of the bias table."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None] + window - 1
    across = columns[:, None] - columns[None] + window - 1
    return down * (2 * window - 1) + across


def _mask(side: int, window: int, shift: int) -> Tensor:
    """(windows, w * w, w * w) f32: 0 where two tokens were neighbours before the shift, else MASKED; (1, 1, 1) without."""
    if not shift:
        return torch.zeros(1, 1, 1)
    zone = torch.zeros(side, dtype=torch.int64)
    zone[side - window : side - shift], zone[side - shift :] = 1, 2
    zones = (3 * zone[:, None] + zone[None]).reshape(side // window, window, side // window, window)
    flat = zones.transpose(1, 2).reshape(-1, window**2)
    return torch.where(flat[:, :, None] == flat[:, None, :], 0.0, MASKED)
