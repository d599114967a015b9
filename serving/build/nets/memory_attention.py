"""SAM 2's memory attention, with the original state-dict keys: an image asks the memories of earlier slices.

Structure of facebookresearch/sam2, `modeling/memory_attention.py` and `RoPEAttention` of `modeling/sam/transformer.py`: one
head, rotary positions on queries and on the memories' keys, none on the object pointers'.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serving.build.nets import sine

WIDTH, MEMORY = 256, 64
"""Channels of an image's token and of a memory's."""
POINTER_TOKENS = WIDTH // MEMORY
"""An object pointer (256,) is four tokens of a memory's width."""
INPUT_POSITIONS = 0.1
"""The share of the positions that is added to the image before the first layer."""


class RotaryAttention(nn.Module):
    """One head of 256 channels. Keys `q_proj`, `k_proj`, `v_proj`, `out_proj`."""

    def __init__(self, given: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH)
        self.k_proj = nn.Linear(given, WIDTH)
        self.v_proj = nn.Linear(given, WIDTH)
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def mix(self, q: Tensor, k: Tensor, given: Tensor) -> Tensor:
        """Queries (P, N, 256) and keys (P, L, 256), rotated, and what the values are made of (P, L, C) -> (P, N, 256).

        Values are mixed before they are projected: shares sum to 1, so it is the same, and a memory is a quarter as wide.
        """
        return self.out_proj(self.v_proj((q * WIDTH**-0.5 @ k.transpose(1, 2)).softmax(-1) @ given))


class Layer(nn.Module):
    """Self-attention, a look at the memories, feed-forward; each normalised before."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(WIDTH)
        self.cross_attn_image = RotaryAttention(MEMORY)
        self.linear1 = nn.Linear(WIDTH, 2048)
        self.linear2 = nn.Linear(2048, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.norm3 = nn.LayerNorm(WIDTH)

    def forward(self, image: Tensor, given: Given, turn: tuple[Tensor, Tensor]) -> Tensor:
        """image (P, N, 256) -> the same. `turn`: cosine and sine of the grid."""
        attention, x = self.self_attn, self.norm1(image)
        q, k = sine.rotate(attention.q_proj(x), *turn), sine.rotate(attention.k_proj(x), *turn)
        image = image + attention.mix(q, k, x)
        attention = self.cross_attn_image
        q = sine.rotate(attention.q_proj(self.norm2(image)), *turn)
        placed = sine.rotate(attention.k_proj(given.memories + given.memory_positions), *turn).flatten(1, 2)
        pointed = sine.ordered(attention.k_proj(given.pointers + given.pointer_positions))
        tokens = torch.cat([given.memories.flatten(1, 2), given.pointers], dim=1)
        image = image + attention.mix(q, torch.cat([placed, pointed], dim=1), tokens)
        return image + self.linear2(torch.relu(self.linear1(self.norm3(image))))


class Given:
    """What an image asks: `memories` and their positions (P, M, N, 64), `pointers` and theirs (P, T, 64)."""

    def __init__(self, memories: Tensor, memory_positions: Tensor, pointers: Tensor, pointer_positions: Tensor) -> None:
        self.memories, self.memory_positions = memories, memory_positions
        self.pointers, self.pointer_positions = pointers, pointer_positions


class MemoryAttention(nn.Module):
    """image (P, N, 256) and what it asks -> the image as its objects' memories see it (P, N, 256)."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, image: Tensor, positions: Tensor, given: Given, turn: tuple[Tensor, Tensor]) -> Tensor:
        """`positions` (1, N, 256): the image's. See the class."""
        image = image + INPUT_POSITIONS * positions
        for layer in self.layers:
            image = layer(image, given, turn)
        return self.norm(image)
