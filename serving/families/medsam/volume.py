"""MedSAM on a volume's slices: upstream's rule for the next slice's box.

bowang-lab/MedSAM, `extensions/seg_3dnii_sparse_marker/medsam_infer_3Dbox_adrenal.py`, which follows a structure with
`medsam_vit_b.pth`: from the slice that is shown outwards, each slice with its own box where it has one.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from serving.families.procedure import wider
from serving.families.volume_slices import Corners, Following

SHIFT_PX = 5
"""Upstream's `bbox_shift`: the box of the mask before, wider by so many pixels of the model frame on each side."""


def next_box(number: int, mask: npt.NDArray[np.bool_], content_px: tuple[int, int]) -> Corners | None:
    """The box around the mask in the model frame, taken there by nearest neighbours and wider by `SHIFT_PX`."""
    del number  # every object is followed alike
    there = np.asarray(cv2.resize(mask.astype(np.uint8), content_px, interpolation=cv2.INTER_NEAREST))
    return wider(there, SHIFT_PX, content_px)


FOLLOWING = Following(next_box, anew=False)
"""Where a mask is empty, the box of that slice again: upstream's "closest slice that has a box"."""
