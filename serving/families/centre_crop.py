"""Pixels -> what CLIP and its kin take, as openai/CLIP `clip.py` (`_transform`): resize, centre crop, RGB, normalise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import PIL.Image

from serving.domain.image import Image
from serving.errors import Fault, Kind

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
"""Of RGB in 0..1."""
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
_LEVELS = np.ascontiguousarray(((np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - MEAN) / STD).T)
"""(3, 256) float32: channel, level 0..255 -> the normalised value. Looking it up gives the same bits as computing it."""

MAX_ASPECT = 64
"""Longest over shortest side. Beyond it the resized picture, of which the crop keeps almost nothing, would not be small."""


def prepare(image: Image, side_px: int) -> npt.NDArray[np.float32]:
    """(3, side_px, side_px) float32, normalised by CLIP's mean and standard deviation.

    PIL's bicubic (antialiased) to `side_px` on the shorter side, the longer one cut to whole pixels; crop from the
    centre with halves to even, as torchvision rounds. Raises Fault(INVALID) for a picture narrower than 1:64.
    """
    rows, columns = image.pixels.shape[:2]
    if max(rows, columns) > MAX_ASPECT * min(rows, columns):
        raise Fault(Kind.INVALID, f"the image is narrower than 1:{MAX_ASPECT}: send a less elongated one", param="image")
    size = _resized(columns, rows, side_px)
    picture = PIL.Image.fromarray(image.pixels).resize(size, PIL.Image.Resampling.BICUBIC)
    left, top = (round((length - side_px) / 2.0) for length in size)
    cropped = np.asarray(picture.crop((left, top, left + side_px, top + side_px)))
    made = np.empty((3, side_px, side_px), np.float32)
    for channel, levels in enumerate(_LEVELS):
        np.take(levels, cropped if cropped.ndim == 2 else cropped[:, :, channel], out=made[channel], mode="clip")
    return made


def _resized(width: int, height: int, side_px: int) -> tuple[int, int]:
    if width <= height:
        return side_px, int(side_px * height / width)
    return int(side_px * width / height), side_px
