"""SAM's ViT attention with a fused kernel for the exported graph's matmul, softmax, matmul. Same weights, same positions.

"padded": scaled_dot_product_attention over queries and keys that carry their positions in more columns (`sam_vit`), the values
padded to the same width. "narrow": the same without padding the values, for kernels that take two widths. "flex": positions
added to the scores inside the kernel (torch.nn.attention.flex_attention), which must be compiled. "": as exported.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.sam_vit import Attention

KINDS = ("", "padded", "narrow", "flex")
COLUMNS = 32
"""Widths are multiples of this: fused kernels want multiples of 8, and run best at such."""


def replaced(module: nn.Module, kind: str) -> nn.Module:
    """The module with every `sam_vit.Attention` below it replaced."""
    if not kind:
        return module
    for name, child in module.named_children():
        if isinstance(child, Attention):
            setattr(module, name, Fused(child, kind))
        else:
            replaced(child, kind)
    return module


class Fused(nn.Module):
    """(B, S, S, width) -> the same, as the attention whose weights it takes."""

    def __init__(self, one: Attention, kind: str) -> None:
        super().__init__()
        self.heads, self.side, self.kind = one.heads, one.side, kind
        self.qkv, self.proj = one.qkv, one.proj
        self.place: Tensor
        self.rows: Tensor
        self.columns: Tensor
        self.register_buffer("place", one.place)
        self.register_buffer("rows", one.rel_pos_h[one.distance].transpose(1, 2).detach())
        self.register_buffer("columns", one.rel_pos_w[one.distance].transpose(1, 2).detach())

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        side, heads = self.side, self.heads
        q, k, v = self.qkv(x.flatten(1, 2)).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        grid = q.unflatten(2, (side, side))
        rows = (grid @ self.rows).flatten(2, 3)
        columns = ((grid.transpose(2, 3) @ self.columns).transpose(2, 3)).flatten(2, 3)
        mixed = self._flex(q, k, v, rows, columns) if self.kind == "flex" else self._wide(q, k, v, rows, columns)
        return self.proj(mixed.transpose(1, 2).flatten(2)).unflatten(1, (side, side))

    def _wide(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        width = q.shape[-1]
        queries = torch.cat([q / math.sqrt(width), rows, columns], dim=-1)
        keys = torch.cat([k, self.place.to(k.dtype).expand(k.shape[0], self.heads, -1, -1)], dim=-1)
        fill = -queries.shape[-1] % COLUMNS
        queries, keys = F.pad(queries, (0, fill)), F.pad(keys, (0, fill))
        values = F.pad(v, (0, queries.shape[-1] - width)) if self.kind == "padded" else v
        return F.scaled_dot_product_attention(queries, keys, values, scale=1.0)[..., :width]

    def _flex(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import flex_attention

        side = self.side

        def placed(score: Tensor, b: Any, h: Any, at: Any, to: Any) -> Tensor:
            return score + rows[b, h, at, to // side] + columns[b, h, at, to % side]

        made = flex_attention(q, k, v, score_mod=placed)
        assert isinstance(made, Tensor)
        return made
