"""SAM 2's memory encoder, with the original state-dict keys: an image and the mask found on it become a memory.

Structure of facebookresearch/sam2, `modeling/memory_encoder.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.build.nets.layers import LayerNorm2d
from serving.build.nets.memory_attention import MEMORY, WIDTH


class MaskDownSampler(nn.Module):
    """(P, 1, S, S) -> (P, 256, S / 16, S / 16), by four halvings. Key `encoder`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (1, 4, 16, 64):
            layers += [nn.Conv2d(inputs, 4 * inputs, 3, 2, 1), LayerNorm2d(4 * inputs), nn.GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(WIDTH, WIDTH, 1))

    def forward(self, mask: Tensor) -> Tensor:
        """See the class."""
        found: Tensor = self.encoder(mask)
        return found


class FuserBlock(nn.Module):
    """ConvNeXt's block on (P, 256, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.norm = LayerNorm2d(WIDTH)
        self.pwconv1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.pwconv2 = nn.Linear(4 * WIDTH, WIDTH)
        self.gamma = nn.Parameter(torch.full((WIDTH,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        last = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        return x + (self.gamma * self.pwconv2(F.gelu(self.pwconv1(last)))).permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """Key `layers`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FuserBlock() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(P, 256, H, W) -> the same."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """image (1 or P, 256, G, G), mask (P, 1, 16 G, 16 G) scaled to -10..10 -> (P, 64, G, G)."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownSampler()
        self.pix_feat_proj = nn.Conv2d(WIDTH, WIDTH, 1)
        self.fuser = Fuser()
        self.out_proj = nn.Conv2d(WIDTH, MEMORY, 1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        found: Tensor = self.out_proj(self.fuser(self.pix_feat_proj(image) + self.mask_downsampler(mask)))
        return found
