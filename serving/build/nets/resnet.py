"""ResNet with bottlenecks (He et al. 2016), the stride in the middle convolution, with torchvision's state-dict keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from serving.build.nets.fit import count_blocks, shape

EXPANSION = 4


@dataclass(frozen=True)
class ResNetConfig:
    """`width` of the first stage's bottlenecks, blocks of each stage, outputs of the last layer, which has no bias."""

    width: int
    depths: tuple[int, ...]
    outputs: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str, layout: str) -> ResNetConfig:
        """Read off the tensors below a prefix. Raises SetupError."""
        width = shape(state, f"{prefix}conv1.weight", layout)[0]
        depths = tuple(count_blocks(state, f"{prefix}layer{n}.") for n in range(1, 5))
        return cls(width, depths, shape(state, f"{prefix}fc.weight", layout)[0])


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions beside a shortcut."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * width
        self.conv1, self.bn1 = nn.Conv2d(given, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        shortcut = nn.Sequential(nn.Conv2d(given, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.downsample = shortcut if stride != 1 or given != out else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4 width, H / stride, W / stride)."""
        made = self.relu(self.bn1(self.conv1(x)))
        made = self.relu(self.bn2(self.conv2(made)))
        made = self.bn3(self.conv3(made))
        return self.relu(made + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Normalised pixels -> the last layer's outputs."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        width = config.width
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        given = width
        for number, depth in enumerate(config.depths):
            wide, stride = width << number, 1 if number == 0 else 2
            blocks = [Bottleneck(given if n == 0 else EXPANSION * wide, wide, stride if n == 0 else 1) for n in range(depth)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
            given = EXPANSION * wide
        self.fc = nn.Linear(given, config.outputs, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) f32 to (B, D) f32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(x.mean((2, 3)))
