"""Pixels -> the image encoder's input, as upstream's CVPR24_LiteMedSAM_infer.py (bowang-lab/MedSAM, branch LiteMedSAM)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from serving.domain.image import Image

SIDE_PX = 256
"""Side of the model's square frame."""

PREPROCESSING_ID = "longest-side-256-area-minmax-pad/1"
"""Names this preprocessing in the Features' key: change it when a result of this file changes."""


@dataclass(frozen=True, eq=False)
class ModelInput:
    """`tensor`: (1, 3, 256, 256) float32, 0..1, RGB, zeros below and right of the image.

    `content_px`: (width, height) of the image inside the square.
    """

    tensor: npt.NDArray[np.float32]
    content_px: tuple[int, int]


def content_size_px(size_px: tuple[int, int]) -> tuple[int, int]:
    """(width, height) with the longest side at 256, halves rounded up; never below 1, where upstream fails."""
    scale = SIDE_PX * 1.0 / max(size_px)
    return max(int(size_px[0] * scale + 0.5), 1), max(int(size_px[1] * scale + 0.5), 1)


def prepare(image: Image) -> ModelInput:
    """Shrink by area to 256, stretch minimum..maximum to 0..1, then pad below and right with zeros.

    The stretch comes before the padding and takes all channels together. A gray picture is repeated to three channels
    after the resize, which treats channels alike.
    """
    rows, columns = image.pixels.shape[:2]
    content_px = content_size_px((columns, rows))
    small = np.asarray(cv2.resize(image.pixels, content_px, interpolation=cv2.INTER_AREA))
    low, high = float(small.min()), float(small.max())
    stretched = (small.astype(np.float64) - low) / max(high - low, 1e-8)
    tensor = np.zeros((1, 3, SIDE_PX, SIDE_PX), np.float32)
    channels_first = stretched[None] if stretched.ndim == 2 else stretched.transpose(2, 0, 1)
    tensor[0, :, : content_px[1], : content_px[0]] = channels_first
    return ModelInput(tensor, content_px)
