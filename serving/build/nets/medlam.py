"""MedLAM, the network of MedLSAM's localisation (openmedlab/MedLSAM, `networks/medlam.py`), with its state-dict keys.

A U-Net over patches of 64 voxels a side whose convolutions are followed by instance normalisation without parameters and a
ReLU. Its bottom tells where the patch lies in a body, its way up gives three feature maps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.build.nets.fit import fit, shape, sized

LAYOUT = "a MedLAM checkpoint"
SIDE = 64
"""Voxels of a patch along each axis."""
CENTRE = 8
"""Voxels along each axis around the patch's centre whose features stand for it."""
_WRAPPER = "module."


class Step(nn.Module):
    """A 3 x 3 x 3 convolution, instance normalisation, ReLU."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"conv1_1": nn.ModuleDict({"Conv": nn.Conv3d(given, made, 3, padding=1)})})

    def forward(self, x: Tensor) -> Tensor:
        """(B, given, D, H, W) to (B, made, D, H, W)."""
        return F.relu(F.instance_norm(self.get_submodule("model.conv1_1.Conv")(x)))


class MedLam(nn.Module):
    """`base`: half the first convolution's channels; upstream's is 24. `classes`: of a head that is not served."""

    def __init__(self, base: int, classes: int) -> None:
        super().__init__()
        pairs = {
            "0": ((1, 2), (2, 2)),
            "1": ((2, 2), (2, 2)),
            "2": ((2, 2), (2, 4)),
            "3": ((4, 4), (4, 8)),
            "4": ((8, 8), (8, 16)),
            "5": ((24, 8), (8, 8)),
            "6": ((12, 4), (4, 4)),
            "7": ((6, 4), (4, 4)),
            "8": ((6, 4), (4, 4)),
        }
        for level, steps in pairs.items():
            for number, (given, made) in enumerate(steps, start=1):
                width = 1 if (level, number) == ("0", 1) else given * base
                self.add_module(f"conv{level}_{number}", Step(width, made * base))
        self.classification = nn.Sequential(nn.Conv3d(4 * base, classes, 1))
        self.fc1 = nn.Linear(16 * base * (SIDE // 16) ** 3, 8 * base)
        self.fc2 = nn.Linear(8 * base, 4 * base)
        self.fc3 = nn.Linear(4 * base, 3)
        self.channels = 4 * base

    def down(self, patch: Tensor) -> tuple[Tensor, ...]:
        """(B, 1, 64, 64, 64) to the five levels, the finest first; the last is (B, 16 base, 4, 4, 4)."""
        levels = [self._level(0, patch)]
        for number in range(1, 5):
            levels.append(self._level(number, F.max_pool3d(levels[-1], 2)))
        return tuple(levels)

    def position(self, bottom: Tensor) -> Tensor:
        """(B, 16 base, 4, 4, 4) to (B, 3) along z, y, x: the argument of the tanh."""
        return self.fc3(self.fc2(self.fc1(bottom.flatten(1))))

    def up(self, levels: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, 4 base) at 16, 32 and 64 voxels a side."""
        x, found = levels[4], []
        for number in range(5, 9):
            wide = F.interpolate(x, scale_factor=2, mode="trilinear")
            x = self._level(number, torch.cat((wide, levels[8 - number]), 1))
            found.append(x)
        return found[1], found[2], found[3]

    def _level(self, number: int, x: Tensor) -> Tensor:
        return self.get_submodule(f"conv{number}_2")(self.get_submodule(f"conv{number}_1")(x))


class Position(nn.Module):
    """Where patches lie."""

    def __init__(self, model: MedLam) -> None:
        super().__init__()
        self.model = model

    def forward(self, patch: Tensor) -> Tensor:
        """(B, 1, 64, 64, 64) in 0..1 to (B, 3)."""
        return self.model.position(self.model.down(patch)[-1])


class Describe(nn.Module):
    """What is kept of a point of a support volume: its position and its surroundings' features."""

    def __init__(self, model: MedLam) -> None:
        super().__init__()
        self.model = model

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 1, 64, 64, 64) to (B, 3), and the features (B, 4 base) of the centre, 2, 4 and 8 voxels a side."""
        levels = self.model.down(patch)
        coarse, middle, fine = (_centre(each) for each in self.model.up(levels))
        return self.model.position(levels[-1]), coarse, middle, fine


class Refine(nn.Module):
    """How much each place of a patch is like a point of the support."""

    def __init__(self, model: MedLam) -> None:
        super().__init__()
        self.model = model

    def forward(self, patch: Tensor, coarse: Tensor, middle: Tensor, fine: Tensor) -> Tensor:
        """(1, 1, 64, 64, 64) and one point's features to (1, 64, 64, 64): mean cosines, summed over the three scales.

        The point's features have length 1 along the channels, or are means of such. They are slid over the patch's own as
        kernels; each map is one wider than its patch, for the kernels are even.
        """
        maps = []
        for features, kernel in zip(self.model.up(self.model.down(patch)), (coarse, middle, fine), strict=True):
            width = kernel.shape[-1]
            alike = F.conv3d(F.normalize(features, dim=1), kernel, padding=width // 2) / width**3
            maps.append(F.interpolate(alike, size=(SIDE, SIDE, SIDE), mode="trilinear"))
        return (maps[0] + maps[1] + maps[2])[:, 0]


def _centre(features: Tensor) -> Tensor:
    side = features.shape[-1]
    reach = CENTRE // 2 * side // SIDE
    span = slice(side // 2 - reach, side // 2 + reach)
    return features[:, :, span, span, span]


def load(state: Mapping[str, Tensor]) -> MedLam:
    """The net of a checkpoint, with or without DataParallel's prefix, at float16 or float32. Raises SetupError."""
    plain = {key.removeprefix(_WRAPPER): value for key, value in state.items()}
    width = shape(plain, "conv0_1.model.conv1_1.Conv.weight", LAYOUT)[0]
    classes = shape(plain, "classification.0.weight", LAYOUT)[0]
    return fit(sized(lambda: MedLam(max(width // 2, 1), classes), LAYOUT), plain, LAYOUT)
