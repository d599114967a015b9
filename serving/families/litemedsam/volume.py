"""LiteMedSAM on a volume's slices: upstream's rule for the next slice's box (CVPR24_LiteMedSAM_infer.py, branch LiteMedSAM)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from serving.families.litemedsam.preprocess import SIDE_PX
from serving.families.procedure import wider
from serving.families.volume_slices import Corners, Following

SHIFT_PX = 3
"""Upstream's `bbox_shift`: the box of the mask before, wider by so many pixels of the model frame on each side."""


def next_box(number: int, mask: npt.NDArray[np.bool_], content_px: tuple[int, int]) -> Corners | None:
    """The box around the mask in the model frame, wider by `SHIFT_PX`; None where the shrunken mask is empty.

    Upstream shrinks a map that holds the object's number, counted from 1, and keeps what does not round to 0: thin parts
    of later objects survive better. That is kept, or masks would differ from the published loop's.
    """
    value = min(number + 1, 255)
    small = np.asarray(cv2.resize(mask.astype(np.uint8) * value, content_px, interpolation=cv2.INTER_AREA))
    return wider(small, SHIFT_PX, (SIDE_PX, SIDE_PX))


FOLLOWING = Following(next_box, anew=True)
"""Where a mask is empty, the first box again."""
