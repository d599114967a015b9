"""LiteMedSAM on a volume's slices: upstream's rule for the next slice's box (CVPR24_LiteMedSAM_infer.py, branch LiteMedSAM)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from serving.domain.prompt import ObjectPrompt
from serving.domain.volume import VolumeObject
from serving.families.litemedsam.preprocess import SIDE_PX, content_size_px
from serving.families.litemedsam.prompts import BOTTOM_RIGHT, TOP_LEFT
from serving.families.sam_slices import SamSlices, Spelled

SHIFT_PX = 3
"""Upstream's `bbox_shift`: the box of the mask before, wider by so many pixels of the model frame on each side."""


class LiteMedSamSlices(SamSlices):
    """Follows objects by the boxes of their masks."""

    def next_prompt(self, number: int, mask: npt.NDArray[np.bool_]) -> Spelled | None:
        """The box around the mask in the model frame, wider by `SHIFT_PX`; None where the shrunken mask is empty.

        Upstream shrinks a map that holds the object's number, counted from 1, and keeps what does not round to 0: thin parts
        of later objects survive better. That is kept, or masks would differ from the published loop's.
        """
        value = min(number + 1, 255)
        content_px = content_size_px(self._frame.size_px)
        small = np.asarray(cv2.resize(mask.astype(np.uint8) * value, content_px, interpolation=cv2.INTER_AREA))
        x, y, width, height = cv2.boundingRect(small)
        if not width:
            return None
        left, top = max(0, x - SHIFT_PX), max(0, y - SHIFT_PX)
        right, bottom = min(SIDE_PX, x + width - 1 + SHIFT_PX), min(SIDE_PX, y + height - 1 + SHIFT_PX)
        return Spelled(((float(left), float(top), TOP_LEFT), (float(right), float(bottom), BOTTOM_RIGHT)))

    def _spell(self, number: int, item: VolumeObject) -> Spelled:
        if isinstance(item.shown, ObjectPrompt):
            return super()._spell(number, item)
        width, height = content_size_px(self._frame.size_px)
        corners = ((0.0, 0.0, TOP_LEFT), (float(width), float(height), BOTTOM_RIGHT))
        return self.next_prompt(number, item.shown.mask) or Spelled(corners)
