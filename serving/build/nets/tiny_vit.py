"""LiteMedSAM's image encoder: a TinyViT without the stem's fourfold reduction.

Structure and state-dict keys of bowang-lab/MedSAM, branch LiteMedSAM, `tiny_vit_sam.py`: 1 x 1 patch embedding at full
resolution, stages at 256, 128, 64 and 64 pixels, neck to 256 channels. Attention biases are read from the parameters at
every call: upstream caches them at the moment of `eval()`, so that weights loaded later are silently ignored there.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.build.nets.layers import LayerNorm2d

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
SIDES = (256, 128, 64, 64)
"""Per stage: channels, blocks, attention heads, window side and token grid side."""


class ConvNorm(nn.Sequential):
    """A convolution without bias, then batch normalisation. Keys `c` and `bn`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(outputs))


class PatchEmbedding(nn.Module):
    """(B, 3, S, S) -> (B, 64, S, S): two 1 x 1 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, width // 2), nn.GELU(), ConvNorm(width // 2, width))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.seq(x)


class InvertedBottleneck(nn.Module):
    """(B, C, H, W) -> the same: expand four times, depthwise 3 x 3, project, add, GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 4 * width
        self.conv1 = ConvNorm(width, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(y))


class Downsample(nn.Module):
    """(B, C, H, W) -> tokens (B, N, D). Halves the grid, except into the last stage, whose grid stays at 64."""

    def __init__(self, width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, out_width)
        self.conv2 = ConvNorm(out_width, out_width, 3, stride, groups=out_width)
        self.conv3 = ConvNorm(out_width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return self.conv3(y).flatten(2).transpose(1, 2)


class WindowAttention(nn.Module):
    """(B, w * w, C) -> the same, with a learned bias a head and absolute offset (|dy|, |dx|)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.bias_index: Tensor
        index, count = offset_index(window)
        self.attention_biases = nn.Parameter(torch.zeros(heads, count))
        self.register_buffer("bias_index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, tokens, width = x.shape
        mixed = self.qkv(self.norm(x)).reshape(batch, tokens, self.heads, 3 * self.head_width).transpose(1, 2)
        q, k, v = mixed.split(self.head_width, dim=-1)
        bias = self.attention_biases[:, self.bias_index]
        scores = q @ k.transpose(-1, -2) * self.head_width**-0.5 + bias
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width))


class FeedForward(nn.Module):
    """(B, N, C) -> the same: normalise, expand four times, GELU, project."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """(B, side * side, C) -> the same: window attention, depthwise 3 x 3, feed-forward."""

    def __init__(self, width: int, side: int, heads: int, window: int) -> None:
        super().__init__()
        self.side, self.window = side, window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, tokens, width = x.shape
        x = x + self._attend(x.reshape(batch, self.side, self.side, width)).reshape(batch, tokens, width)
        grid = x.transpose(1, 2).reshape(batch, width, self.side, self.side)
        x = self.local_conv(grid).flatten(2).transpose(1, 2)
        return x + self.mlp(x)

    def _attend(self, grid: Tensor) -> Tensor:
        batch, side, _, width = grid.shape
        window = self.window
        pad = -side % window
        count = (side + pad) // window
        padded = F.pad(grid, (0, 0, 0, pad, 0, pad))
        tiles = padded.reshape(batch, count, window, count, window, width).transpose(2, 3)
        mixed = self.attn(tiles.reshape(batch * count * count, window * window, width))
        back = mixed.reshape(batch, count, count, window, window, width).transpose(2, 3)
        return back.reshape(batch, side + pad, side + pad, width)[:, :side, :side]


class Stage(nn.Module):
    """Blocks, then the way down to the next stage (None in the last)."""

    def __init__(self, number: int) -> None:
        super().__init__()
        width, side = WIDTHS[number], SIDES[number]
        if number == 0:
            blocks: list[nn.Module] = [InvertedBottleneck(width) for _ in range(DEPTHS[0])]
        else:
            blocks = [Block(width, side, HEADS[number], WINDOWS[number]) for _ in range(DEPTHS[number])]
        self.blocks = nn.ModuleList(blocks)
        self.side = side
        last = number == len(WIDTHS) - 1
        self.downsample = None if last else Downsample(width, WIDTHS[number + 1], side // SIDES[number + 1])

    def forward(self, x: Tensor) -> Tensor:
        """Grid (B, C, H, W) in the first stage, tokens (B, N, C) after it; tokens out."""
        for block in self.blocks:
            x = block(x)
        if self.downsample is None:
            return x
        if x.ndim == 3:
            x = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], self.side, self.side)
        return self.downsample(x)


class ImageEncoder(nn.Module):
    """image (B, 3, 256, 256) float32 in [0, 1] -> features (B, 256, 64, 64) float32."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(WIDTHS[0])
        self.layers = nn.ModuleList(Stage(number) for number in range(len(WIDTHS)))
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        x = self.patch_embed(image)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x.transpose(1, 2).reshape(x.shape[0], WIDTHS[-1], SIDES[-1], SIDES[-1]))


def offset_index(window: int) -> tuple[Tensor, int]:
    """(w*w, w*w) int64: which bias each pair of places uses, numbered as first met in reading order; and how many there are."""
    places = list(itertools.product(range(window), repeat=2))
    numbers: dict[tuple[int, int], int] = {}
    rows = [[numbers.setdefault((abs(a - c), abs(b - d)), len(numbers)) for c, d in places] for a, b in places]
    return torch.tensor(rows), len(numbers)
