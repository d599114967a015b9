"""Pixels -> the image tower's input, in the two ways of RyanWangZf/MedCLIP (`dataset.py`): they are not equal.

`processor`: MedCLIPProcessor, of the README's example: PIL's bicubic. `evaluation`: ZeroShotImageDataset, of the paper's
numbers: PIL's bilinear. Both antialias, pad to a square with black and see gray.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import PIL.Image

from serving.domain.image import Image
from serving.families.squares import check_square

PREPROCESSING_ID = "medclip/1"
"""Changes whenever the same picture gives other numbers."""
PROCESSOR, EVALUATION = "processor", "evaluation"
WAYS = {PROCESSOR: PIL.Image.Resampling.BICUBIC, EVALUATION: PIL.Image.Resampling.BILINEAR}

MEAN, STD = np.float32(0.5862785803043838), np.float32(0.27950088968644304)
"""Of gray in 0..1 (`constants.py`)."""
LEAST_PX = 224
"""A smaller picture is not enlarged but padded."""
_LEVELS = (np.arange(256, dtype=np.float32) / np.float32(255) - MEAN) / STD
"""(256,) float32: gray level -> the normalised value."""


def prepare(image: Image, side_px: int, way: str) -> npt.NDArray[np.float32]:
    """(3, side_px, side_px) float32, the same in all three channels. `way`: one of WAYS. Raises Fault for a sliver."""
    check_square(*image.pixels.shape[:2])
    gray = np.asarray(_square(image.pixels).resize((side_px, side_px), WAYS[way]), np.uint8)
    return np.repeat(np.take(_LEVELS, gray)[None], 3, axis=0)


def _square(pixels: npt.NDArray[np.uint8]) -> PIL.Image.Image:
    """Gray, centred on black; the odd column or row of padding comes after."""
    picture = PIL.Image.fromarray(pixels)
    width, height = picture.size
    side = max(LEAST_PX, width, height)
    canvas = PIL.Image.new("L", (side, side))
    canvas.paste(picture, ((side - width) // 2, (side - height) // 2))
    return canvas
