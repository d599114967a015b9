"""How a SAM-like model sees a picture and gives its masks back: what belongs to a checkpoint, not to a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from serving.domain.image import Image

SAM_MEAN, SAM_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of SAM's pictures, RGB, 0..255 (segment_anything `build_sam.py`)."""


@dataclass(frozen=True, eq=False)
class ModelInput:
    """`tensor`: (1, 3, side, side) float32, RGB, as the image encoder takes it; padding right of and below the image.

    `content_px`: (width, height) of the image inside the square.
    """

    tensor: npt.NDArray[np.float32]
    content_px: tuple[int, int]


@dataclass(frozen=True)
class Scale:
    """Original frame -> model frame: factors along x and y. `whole_corners`: a box's corners are cut to whole pixels."""

    x: float
    y: float
    whole_corners: bool = False

    def content_px(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of an image of that size inside the model's square, as `Procedure.prepare` lays it there."""
        return max(int(size_px[0] * self.x + 0.5), 1), max(int(size_px[1] * self.y + 0.5), 1)


@dataclass(frozen=True)
class Procedure:
    """`id`: names the preprocessing and its version in the Features' key. `side_px`: of the model's square frame.

    `prepare`: pixels -> the encoder's input. `scale`: of a frame's (width, height). `mask`: logits (S, S) float32 of one mask
    (SAM: 256), the content's and the original frame's (width, height) -> (rows, columns) bool of the original frame.
    `to_travel`: those logits -> (256, 256), as answers and earlier logits have them.
    """

    id: str
    side_px: int
    prepare: Callable[[Image], ModelInput]
    scale: Callable[[tuple[int, int]], Scale]
    mask: Callable[[npt.NDArray[np.float32], tuple[int, int], tuple[int, int]], npt.NDArray[np.bool_]]
    to_travel: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] = np.asarray


def longest_side_px(size_px: tuple[int, int], side_px: int) -> tuple[int, int]:
    """(width, height) with the longest side at `side_px`, halves rounded up; never below 1, where upstream fails."""
    scale = side_px * 1.0 / max(size_px)
    return max(int(size_px[0] * scale + 0.5), 1), max(int(size_px[1] * scale + 0.5), 1)


def min_max(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Minimum..maximum of all channels together -> 0..1; a constant picture becomes 0."""
    low, high = float(pixels.min()), float(pixels.max())
    return (pixels.astype(np.float64) - low) / max(high - low, 1e-8)


def placed(pixels: npt.NDArray[Any], side_px: int) -> npt.NDArray[np.float32]:
    """(rows, columns) or (rows, columns, 1 or 3) -> (1, 3, side_px, side_px), zeros right of and below it; gray is repeated."""
    tensor = np.zeros((1, 3, side_px, side_px), np.float32)
    channels_first = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    tensor[0, :, : pixels.shape[0], : pixels.shape[1]] = channels_first
    return tensor


def wider(mask: npt.NDArray[Any], shift_px: int, most_px: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The box (x0, y0, x1, y1) around what is not 0 of (rows, columns) uint8, each side moved out by `shift_px`, not beyond 0
    and `most_px` (width, height); None where all is 0. Corners are the outermost pixels' own numbers, as upstream's."""
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return None
    right, bottom = min(most_px[0], x + width - 1 + shift_px), min(most_px[1], y + height - 1 + shift_px)
    return float(max(0, x - shift_px)), float(max(0, y - shift_px)), float(right), float(bottom)
