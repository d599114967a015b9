"""The decoder's logits -> a mask in the original frame, in each generation's order."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from serving.families.medsam.preprocess import SIDE_PX

Logits = npt.NDArray[np.float32]
Size = tuple[int, int]


def sam_mask(logits: Logits, content_px: Size, size_px: Size) -> npt.NDArray[np.bool_]:
    """(256, 256) float32 -> (rows, columns) bool: to 1024, crop the padding off, to the original frame, threshold 0.

    `Sam.postprocess_masks` of facebookresearch/segment-anything; both resizes are bilinear. Sizes are (width, height).
    """
    return _back(logits, content_px, size_px) > 0


def squash_mask(logits: Logits, content_px: Size, size_px: Size) -> npt.NDArray[np.bool_]:
    """As MedSAM since July 2023 (`medsam_inference`): sigmoid first, bilinear to the original frame, above 0.5."""
    del content_px  # the whole square
    return np.asarray(cv2.resize(_sigmoid(logits), size_px, interpolation=cv2.INTER_LINEAR)) > 0.5


def april_mask(logits: Logits, content_px: Size, size_px: Size) -> npt.NDArray[np.bool_]:
    """MedSAM of April 2023 takes the sigmoid first and stops at 256 x 256; the way back from there is SAM's."""
    return _back(_sigmoid(logits), content_px, size_px) > 0.5


def _back(values: Logits, content_px: Size, size_px: Size) -> Logits:
    width, height = content_px
    large = np.asarray(cv2.resize(values, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR))
    return np.asarray(cv2.resize(large[:height, :width], size_px, interpolation=cv2.INTER_LINEAR))


def _sigmoid(logits: Logits) -> Logits:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)))
