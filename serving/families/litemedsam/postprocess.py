"""The decoder's logits -> a mask in the original frame, in upstream's order: crop, resize, then the threshold."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def binary_mask(
    logits: npt.NDArray[np.float32], content_px: tuple[int, int], size_px: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """(256, 256) float32 logits of the model frame -> (rows, columns) bool of the original frame.

    Crop to `content_px` (width, height), resize bilinearly to `size_px` (width, height), then sigmoid > 0.5. The last
    step is written as logit > 0: in float32 the two differ only where 0 < logit < 2.4e-7, for which the sigmoid rounds
    to 0.5.
    """
    width, height = content_px
    return np.asarray(cv2.resize(logits[:height, :width], size_px, interpolation=cv2.INTER_LINEAR)) > 0
