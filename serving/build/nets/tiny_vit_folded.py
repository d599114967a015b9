"""TinyViT's image encoder as it is exported: equal in exact arithmetic to `tiny_vit`, with less to compute and to move.

- A normalisation's scale and shift go into the projection behind it. What is left normalises zeros to zeros, so that windows
  are padded after it and padded places cost no bias: upstream pads before it with zeros, which it normalises to the shift.
- A key's bias adds the same to all scores of a query and falls out of the softmax; a value's bias passes through it (weights
  sum to one) into the output projection's.
- Queries, keys and values are projected apart: one projection of all three must be cut up by head afterwards, at the cost of a
  copy of all of it.
- Tokens become a grid, and a grid tokens, by a permutation of four axes: runtimes that hold pictures channels-last do nothing
  for it, and do not see that through a permutation of three axes and a reshape.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.build.nets.layers import LayerNorm2d
from serving.build.nets.tiny_vit import SIDES, Block, Downsample, FeedForward, ImageEncoder, Stage, WindowAttention


def to_grid(tokens: Tensor, side: int) -> Tensor:
    """(B, side * side, C) -> (B, C, side, side)."""
    return tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)


def to_tokens(grid: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    return grid.permute(0, 2, 3, 1).flatten(1, 2)


def unscaled(tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The normalisation without the scale and shift, which `behind` puts into a projection."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=norm.eps)


def behind(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (D, C) and bias (D,) of a projection that has the scale and shift before it in itself."""
    return weight * norm.weight, bias + weight @ norm.bias


class FoldedAttention(nn.Module):
    """(B, side * side, C) -> the same: `tiny_vit.WindowAttention` in each window of a grid."""

    def __init__(self, attention: WindowAttention, side: int, window: int) -> None:
        super().__init__()
        self.side, self.window = side, window
        self.heads, self.norm = attention.heads, attention.norm
        head = attention.head_width
        with torch.no_grad():
            weight, bias = behind(attention.norm, attention.qkv.weight, attention.qkv.bias)
            query, key, value = (rows.flatten(0, 1) for rows in weight.unflatten(0, (self.heads, 3, head)).unbind(1))
            query_bias, _, value_bias = (rows.flatten() for rows in bias.unflatten(0, (self.heads, 3, head)).unbind(1))
            self.query = _linear(query * head**-0.5, query_bias * head**-0.5)
            self.key = _linear(key)
            self.value = _linear(value)
            self.proj = _linear(attention.proj.weight, attention.proj.bias + attention.proj.weight @ value_bias)
            self.offsets: Tensor
            self.register_buffer("offsets", attention.attention_biases[:, attention.bias_index].contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        tiles = self._windows(unscaled(x, self.norm))
        q, k, v = (self._by_head(projection(tiles)) for projection in (self.query, self.key, self.value))
        mixed = (q @ k.transpose(-1, -2) + self.offsets).softmax(-1) @ v
        return self.proj(self._together(mixed.transpose(1, 2).flatten(2), x.shape[0]))

    def _by_head(self, tiles: Tensor) -> Tensor:
        return tiles.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _windows(self, x: Tensor) -> Tensor:
        """(B, side * side, C) -> (B * windows, window * window, C), with zeros behind the last row and column."""
        batch, _, width = x.shape
        pad = -self.side % self.window
        count = (self.side + pad) // self.window
        padded = F.pad(x.reshape(batch, self.side, self.side, width), (0, 0, 0, pad, 0, pad))
        tiles = padded.reshape(batch, count, self.window, count, self.window, width).transpose(2, 3)
        return tiles.reshape(batch * count * count, self.window * self.window, width)

    def _together(self, tiles: Tensor, batch: int) -> Tensor:
        """The way back."""
        width, whole = tiles.shape[-1], self.side + -self.side % self.window
        count = whole // self.window
        rows = tiles.reshape(batch, count, count, self.window, self.window, width).transpose(2, 3)
        grid = rows.reshape(batch, whole, whole, width)[:, : self.side, : self.side]
        return grid.reshape(batch, self.side * self.side, width)


class FoldedFeedForward(nn.Module):
    """(B, N, C) -> the same: `tiny_vit.FeedForward`."""

    def __init__(self, mlp: FeedForward) -> None:
        super().__init__()
        self.norm, self.fc2 = mlp.norm, mlp.fc2
        with torch.no_grad():
            self.fc1 = _linear(*behind(mlp.norm, mlp.fc1.weight, mlp.fc1.bias))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.fc2(F.gelu(self.fc1(unscaled(x, self.norm))))


class FoldedBlock(nn.Module):
    """(B, side * side, C) -> the same: `tiny_vit.Block`."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.side, self.local_conv = block.side, block.local_conv
        self.attention = FoldedAttention(block.attn, block.side, block.window)
        self.mlp = FoldedFeedForward(block.mlp)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x + self.attention(x)
        x = to_tokens(self.local_conv(to_grid(x, self.side)))
        return x + self.mlp(x)


class FoldedEncoder(nn.Module):
    """image (B, 3, 256, 256) float32 in [0, 1] -> features (B, 256, 64, 64) float32: `tiny_vit.ImageEncoder`.

    The trained encoder's weights are copied where they change and shared where not.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        assert isinstance(encoder, ImageEncoder)
        first, *later = encoder.layers
        assert isinstance(first, Stage)
        self.patch_embed, self.first, self.neck = encoder.patch_embed, first, encoder.neck
        self.later = nn.ModuleList(_folded(stage) for stage in later)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        grid = self.patch_embed(image)
        for block in self.first.blocks:
            grid = block(grid)
        tokens = _down(self.first.downsample, grid)
        for stage, side in zip(self.later, SIDES[1:], strict=True):
            assert isinstance(stage, nn.ModuleDict)
            for block in stage["blocks"].children():
                tokens = block(tokens)
            if "downsample" in stage:
                tokens = _down(stage["downsample"], to_grid(tokens, side))
        return self._out(tokens)

    def _out(self, tokens: Tensor) -> Tensor:
        """The neck: its first convolution sees one place at a time, as a projection does."""
        narrow, first, wide, second = self.neck
        tokens = _normalised(F.linear(tokens, narrow.get_parameter("weight").flatten(1)), first)
        return to_grid(_normalised(to_tokens(wide(to_grid(tokens, SIDES[-1]))), second), SIDES[-1])


def _folded(stage: nn.Module) -> nn.ModuleDict:
    assert isinstance(stage, Stage)
    blocks = nn.ModuleList(FoldedBlock(block) for block in stage.blocks if isinstance(block, Block))
    return nn.ModuleDict({"blocks": blocks} if stage.downsample is None else {"blocks": blocks, "downsample": stage.downsample})


def _down(downsample: nn.Module | None, grid: Tensor) -> Tensor:
    """Grid (B, C, H, W) to the next stage's tokens."""
    assert isinstance(downsample, Downsample)
    return to_tokens(downsample.conv3(F.gelu(downsample.conv2(F.gelu(downsample.conv1(grid))))))


def _normalised(tokens: Tensor, norm: nn.Module) -> Tensor:
    assert isinstance(norm, LayerNorm2d)
    return F.layer_norm(tokens, tokens.shape[-1:], norm.weight, norm.bias, norm.eps)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made
