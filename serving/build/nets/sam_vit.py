"""SAM's image encoder (ViT-B, L, H), with the original state-dict keys and all sizes told from the weights.

Structure of facebookresearch/segment-anything, `modeling/image_encoder.py` (after ViTDet, Li et al. 2022): attention in
windows, a few global blocks, decomposed relative positions (MViTv2, Li et al. 2022), a convolutional neck. LayerNorm eps 1e-6.

Relative positions are added inside the scores' own matrix product. Behind a query stand its products with the tables of its row
and its column, behind a key its row and its column one-hot, so that q' k'^T = q k^T / sqrt(d) + rel_h + rel_w. No bias of the
scores' size is ever formed: at 64 x 64 tokens it would take 64 MiB a head.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.layers import LayerNorm2d
from serving.build.nets.sam import WIDTH
from serving.errors import SetupError

EPS = 1e-6


@dataclass(frozen=True)
class Sizes:
    """Of one image encoder. `grid`: tokens along a side of the picture; `windows`: of each block, `grid` where it is global."""

    width: int
    hidden: int
    heads: int
    patch: int
    grid: int
    windows: tuple[int, ...]

    @property
    def image_size(self) -> int:
        """Side of the picture, pixels."""
        return self.grid * self.patch


class Attention(nn.Module):
    """Multi-head attention among the S * S tokens of a square, with decomposed relative positions."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        steps = torch.arange(side, device="cpu")  # also where the weights are shapes alone, until a checkpoint's are assigned
        self.distance: Tensor
        self.place: Tensor
        self.register_buffer("distance", steps[:, None] - steps[None] + side - 1, persistent=False)
        row, column = steps.repeat_interleave(side), steps.repeat(side)
        place = torch.cat([F.one_hot(row, side), F.one_hot(column, side)], dim=1).float()
        self.register_buffer("place", place[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, S, width) -> the same."""
        side, heads = self.side, self.heads
        q, k, v = self.qkv(x.flatten(1, 2)).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        grid = q.unflatten(2, (side, side))  # (B, heads, S, S, d)
        rows = grid @ self.rel_pos_h[self.distance].transpose(1, 2)  # (S, d, S) a row of queries
        columns = (grid.transpose(2, 3) @ self.rel_pos_w[self.distance].transpose(1, 2)).transpose(2, 3)
        queries = torch.cat([q / math.sqrt(q.shape[-1]), rows.flatten(2, 3), columns.flatten(2, 3)], dim=-1)
        keys = torch.cat([k, self.place.expand(k.shape[0], heads, -1, -1)], dim=-1)
        mixed = (queries @ keys.transpose(-1, -2)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2)).unflatten(1, (side, side))


class FeedForward(nn.Module):
    """(..., width) -> the same, by GELU. Keys `lin1`, `lin2`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.lin2(F.gelu(self.lin1(x)))


class Block(nn.Module):
    """(B, grid, grid, width) -> the same. Tokens that only fill the last windows are zeros and are attended to, as upstream."""

    def __init__(self, sizes: Sizes, window: int) -> None:
        super().__init__()
        self.grid, self.window = sizes.grid, window
        self.norm1 = nn.LayerNorm(sizes.width, eps=EPS)
        self.attn = Attention(sizes.width, sizes.heads, window)
        self.norm2 = nn.LayerNorm(sizes.width, eps=EPS)
        self.mlp = FeedForward(sizes.width, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor) -> Tensor:
        grid, window = self.grid, self.window
        if window == grid:
            return self.attn(x)
        many = -(-grid // window)
        fill = many * window - grid
        x = F.pad(x, (0, 0, 0, fill, 0, fill)).unflatten(1, (many, window)).unflatten(3, (many, window))
        x = self.attn(x.transpose(2, 3).flatten(0, 2))
        x = x.unflatten(0, (-1, many, many)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return x[:, :grid, :grid]


class ImageEncoder(nn.Module):
    """image (B, 3, image_size, image_size) float32 -> (B, 256, grid, grid)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch)})
        self.pos_embed = nn.Parameter(torch.zeros(1, sizes.grid, sizes.grid, sizes.width))
        self.blocks = nn.ModuleList(Block(sizes, window) for window in sizes.windows)
        self.neck = nn.Sequential(
            nn.Conv2d(sizes.width, WIDTH, 1, bias=False), LayerNorm2d(WIDTH),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), LayerNorm2d(WIDTH),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        x = self.patch_embed["proj"](image).permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


def sizes_of(state: Mapping[str, Tensor], prefix: str = "image_encoder.") -> Sizes:
    """The sizes of an encoder from the shapes of its weights, original layout. Raises SetupError that names the bad one."""

    def shape(key: str, rank: int) -> tuple[int, ...]:
        found = state.get(prefix + key)
        if found is None:
            raise SetupError(f"the checkpoint is not SAM's: {prefix}{key} is missing")
        if found.ndim != rank:
            raise SetupError(f"the checkpoint is not SAM's: {prefix}{key} has shape {tuple(found.shape)}, not {rank} axes")
        return tuple(found.shape)

    width, _, patch, _ = shape("patch_embed.proj.weight", 4)
    grid = shape("pos_embed", 4)[1]
    block = re.compile(rf"{re.escape(prefix)}blocks\.(\d+)\.")
    numbers = {int(found[1]) for key in state if (found := block.match(key))}
    tables = [shape(f"blocks.{number}.attn.rel_pos_h", 2) for number in range(max(numbers, default=0) + 1)]
    hidden = shape("blocks.0.mlp.lin1.weight", 2)[0]
    return Sizes(width, hidden, max(width // tables[0][1], 1), patch, grid, tuple((rows + 1) // 2 for rows, _ in tables))
