"""Pixels -> the image encoder's input, as upstream's CVPR24_LiteMedSAM_infer.py (bowang-lab/MedSAM, branch LiteMedSAM)."""

from __future__ import annotations

import cv2
import numpy as np

from serving.domain.image import Image
from serving.families.procedure import ModelInput, Scale, longest_side_px, min_max, placed

__all__ = ["PREPROCESSING_ID", "SIDE_PX", "ModelInput", "content_size_px", "prepare", "scale"]

SIDE_PX = 256
"""Side of the model's square frame."""

PREPROCESSING_ID = "longest-side-256-area-minmax-pad/1"
"""Names this preprocessing in the Features' key: change it when a result of this file changes."""


def content_size_px(size_px: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the image in the model frame."""
    return longest_side_px(size_px, SIDE_PX)


def scale(size_px: tuple[int, int]) -> Scale:
    """One ratio for both axes; corners are cut to whole pixels, as upstream's `resize_box_to_256` does."""
    ratio = SIDE_PX / max(size_px)
    return Scale(ratio, ratio, whole_corners=True)


def prepare(image: Image) -> ModelInput:
    """Shrink by area to 256, stretch minimum..maximum to 0..1, then pad below and right with zeros.

    The stretch comes before the padding and takes all channels together. A gray picture is repeated to three channels
    after the resize, which treats channels alike.
    """
    rows, columns = image.pixels.shape[:2]
    content_px = content_size_px((columns, rows))
    small = np.asarray(cv2.resize(image.pixels, content_px, interpolation=cv2.INTER_AREA))
    return ModelInput(placed(min_max(small), SIDE_PX), content_px)
