"""SAM 2's image encoder: Hiera and the neck that makes three levels of its stages, with the original state-dict keys.

Structure of facebookresearch/sam2, `modeling/backbones/image_encoder.py`.
"""

from __future__ import annotations

from torch import Tensor, nn

from serving.build.nets.hiera import POOL, Hiera, Sizes

WIDTH = 256


class Lateral(nn.Module):
    """Key `conv`."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) -> (B, 256, H, W)."""
        return self.conv(x.permute(0, 3, 1, 2))


class Neck(nn.Module):
    """The stages' ends -> three levels of 256 channels, at a quarter, an eighth and a sixteenth of the image's side.

    Only the last is told of the one below it (`fpn_top_down_levels: [2, 3]`, nearest); the lowest is left out (`scalp: 1`).
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Lateral(width) for width in reversed(sizes.widths))

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        below = self.convs[0](stages[3])
        level = self.convs[1](stages[2]) + doubled(below)
        return self.convs[3](stages[0]), self.convs[2](stages[1]), level


class ImageEncoder(nn.Module):
    """Trunk and neck. Keys `trunk`, `neck`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.trunk = Hiera(sizes)
        self.neck = Neck(sizes)

    def forward(self, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Hiera` and `Neck`."""
        found: tuple[Tensor, Tensor, Tensor] = self.neck(self.trunk(image, positions))
        return found


def doubled(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2 H, 2 W), each value four times."""
    return x.repeat_interleave(POOL, dim=2).repeat_interleave(POOL, dim=3)
