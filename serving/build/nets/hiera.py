"""Hiera, the trunk of SAM 2's image encoder, with the original state-dict keys.

Structure of facebookresearch/sam2, `modeling/backbones/hieradet.py`; Ryali et al., Hiera, 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6
PATCH = 4
WINDOWS = (8, 4, 14, 7)
"""Side of an attention window by stage, in tokens."""
POOL = 2
GLOBAL_BLOCKS: dict[tuple[int, ...], tuple[int, ...]] = {(1, 2, 7, 2): (5, 7, 9)}
"""Blocks by stage -> those that attend to the whole grid: Hiera-T, `sam2.1_hiera_t.yaml`."""


@dataclass(frozen=True)
class Sizes:
    """`image_size`: side of the square image, pixels. `embed_dim`: channels of the first stage. `stages`: blocks by stage.

    `memory_layers`: of the memory attention behind it.
    """

    image_size: int = 512
    embed_dim: int = 96
    stages: tuple[int, ...] = (1, 2, 7, 2)
    memory_layers: int = 4

    @property
    def grid(self) -> int:
        """Side of the image embedding, tokens."""
        return self.image_size // 16

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels by stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.stages)))


class Mlp(nn.Module):
    """(..., width) -> 4 width with GELU -> (..., width). Keys `layers.N`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, 4 * width), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.layers[1](F.gelu(self.layers[0](x)))


class Attention(nn.Module):
    """Tokens (B, H, W, inputs) of one window each attend to one another; with `pool` the queries shrink to half the side."""

    def __init__(self, inputs: int, outputs: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
        self.qkv = nn.Linear(inputs, 3 * outputs)
        self.proj = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.pool:
            q = halved(q)
        height, width = q.shape[1:3]
        q, k, v = (each.flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.proj(mixed.unflatten(1, (height, width)))


class Block(nn.Module):
    """One transformer block on (B, H, W, inputs); `window` 0 is the whole grid."""

    def __init__(self, inputs: int, outputs: int, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.window, self.pool = window, pool
        self.norm1 = nn.LayerNorm(inputs, eps=EPS)
        self.attn = Attention(inputs, outputs, heads, pool)
        self.norm2 = nn.LayerNorm(outputs, eps=EPS)
        self.mlp = Mlp(outputs)
        if inputs != outputs:
            self.proj = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        normed = self.norm1(x)
        if hasattr(self, "proj"):
            x = self.proj(normed)
            x = halved(x) if self.pool else x
        if not self.window:
            x = x + self.attn(normed)
        else:
            windows, counts = split(normed, self.window)
            x = x + join(self.attn(windows), counts, (x.shape[1], x.shape[2]))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Image -> (B, H / 4, W / 4, channels). Key `proj`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 7, PATCH, 3)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.proj(image).permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """image (B, 3, S, S) and `positions` -> the four stages' ends, (B, S / 4, S / 4, C) to (B, S / 32, S / 32, 8 C)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        first = sizes.widths[0]
        self.patch_embed = PatchEmbed(first)
        self.pos_embed = nn.Parameter(torch.zeros(1, first, 7, 7))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, first, WINDOWS[0], WINDOWS[0]))
        self.blocks = nn.ModuleList(_blocks(sizes))
        self.ends = [end - 1 for end in accumulate(sizes.stages)]

    def positions(self) -> Tensor:
        """(1, S / 4, S / 4, C): the coarse grid stretched bicubically, and the window's own, tiled over it."""
        side = self.sizes.image_size // PATCH
        tiles = side // WINDOWS[0]
        stretched = F.interpolate(self.pos_embed, (side, side), mode="bicubic")
        return (stretched + self.pos_embed_window.tile(1, 1, tiles, tiles)).permute(0, 2, 3, 1)

    def forward(self, image: Tensor, positions: Tensor) -> list[Tensor]:
        """See the class."""
        x, found = self.patch_embed(image) + positions, []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.ends:
                found.append(x)
        return found


def _blocks(sizes: Sizes) -> list[Block]:
    """A stage's first block still has the window of the stage before, and halves the grid."""
    found: list[Block] = []
    for stage, (before, after) in enumerate(pairwise((sizes.widths[0], *sizes.widths))):
        for number in range(sizes.stages[stage]):
            first = number == 0 and stage > 0
            window = 0 if len(found) in GLOBAL_BLOCKS[sizes.stages] else WINDOWS[stage - first]
            found.append(Block(before if first else after, after, 2**stage, window, first))
    return found


def halved(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H / 2, W / 2, C), the greatest of four."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), POOL, POOL).permute(0, 2, 3, 1)


def split(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """(B, H, W, C), zeros below and right of it -> windows (B * rows * columns, window, window, C), and (rows, columns)."""
    height, width = x.shape[1:3]
    rows, columns = -(-height // window), -(-width // window)
    if (rows * window, columns * window) != (height, width):
        x = F.pad(x, (0, 0, 0, columns * window - width, 0, rows * window - height))
    x = x.unflatten(2, (columns, window)).unflatten(1, (rows, window))
    return x.transpose(2, 3).flatten(0, 2), (rows, columns)


def join(windows: Tensor, counts: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """What `split` made, its windows perhaps pooled since, back to (B, H, W, C) of that size."""
    x = windows.unflatten(0, (-1, *counts)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : size[0], : size[1]]
