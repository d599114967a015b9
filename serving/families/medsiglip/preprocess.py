"""Pixels -> the image tower's input, in the three ways that Google-Health/medsiglip publishes.

`container`: its serving container (`python/serving/predictor.py`): zeros beside the shorter side, PIL's bicubic. `processor`:
transformers' image processor alone: PIL's bicubic without regard to aspect. `evaluation`: the notebook "to reproduce our
evals": TensorFlow's bilinear without antialias, without regard to aspect, cut to whole levels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import PIL.Image

from serving.domain.image import Image
from serving.families.squares import check_square

PREPROCESSING_ID = "medsiglip/1"
"""Changes whenever the same picture gives other numbers."""
CONTAINER, PROCESSOR, EVALUATION = "container", "processor", "evaluation"
WAYS = (CONTAINER, PROCESSOR, EVALUATION)

_LEVELS = (np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
"""(256,) float32: level 0..255 -> the normalised value, -1..1."""


def prepare(image: Image, side_px: int, way: str) -> npt.NDArray[np.float32]:
    """(3, side_px, side_px) float32 in -1..1. `way`: one of WAYS. Raises Fault for a sliver that would be padded."""
    if way == EVALUATION:
        levels = bilinear(image.pixels, side_px).astype(np.uint8)
    else:
        levels = _bicubic(square(image.pixels) if way == CONTAINER else image.pixels, side_px)
    planes = levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(np.take(_LEVELS, planes), (3, side_px, side_px)))


def square(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Zeros on both sides of the shorter axis, the odd one after it."""
    rows, columns = pixels.shape[:2]
    check_square(rows, columns)
    before = tuple((max(rows, columns) - length) // 2 for length in (rows, columns))
    after = tuple(max(rows, columns) - length - start for length, start in zip((rows, columns), before, strict=True))
    return np.pad(pixels, (*zip(before, after, strict=True), *[(0, 0)] * (pixels.ndim - 2)))


def bilinear(pixels: npt.NDArray[np.uint8], side_px: int) -> npt.NDArray[np.float32]:
    """(side_px, side_px) or with channels float32: between the four nearest, pixel centres at halves (`tf.image.resize`)."""
    values = pixels.reshape(*pixels.shape[:2], -1).astype(np.float32)
    top, bottom, down = _between(pixels.shape[0], side_px)
    left, right, across = _between(pixels.shape[1], side_px)
    down, across = down[:, None, None], across[:, None]
    upper = values[top][:, left] + (values[top][:, right] - values[top][:, left]) * across
    lower = values[bottom][:, left] + (values[bottom][:, right] - values[bottom][:, left]) * across
    return np.asarray(upper + (lower - upper) * down, np.float32).reshape(side_px, side_px, *pixels.shape[2:])


def _between(given: int, wanted: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each wanted sample the given ones before and after it, and how far it lies between them."""
    scale = np.float32(given) / np.float32(wanted)
    position = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    first = np.floor(position)
    before = np.maximum(first, 0).astype(np.int64)
    after = np.minimum(first + 1, given - 1).astype(np.int64)
    return before, after, (position - first).astype(np.float32)


def _bicubic(pixels: npt.NDArray[np.uint8], side_px: int) -> npt.NDArray[np.uint8]:
    return np.asarray(PIL.Image.fromarray(pixels).resize((side_px, side_px), PIL.Image.Resampling.BICUBIC))
