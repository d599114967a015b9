"""Layers that several networks share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Normalises (B, C, H, W) over C. Upstream's epsilon, 1e-6 (segment_anything `modeling/common.py`)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Through the last axis, so that it stays one LayerNormalization operator in ONNX (opset 17)."""
        shape = (self.weight.shape[0],)
        last = nn.functional.layer_norm(x.permute(0, 2, 3, 1), shape, self.weight, self.bias, self.eps)
        return last.permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Linear layers with ReLU between. Keys `layers.N`."""

    def __init__(self, width: int, hidden: int, outputs: int, depth: int = 3) -> None:
        super().__init__()
        sizes = [width, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., outputs)."""
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)
