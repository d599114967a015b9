"""Pixels -> the image tower's input, as rajpurkarlab/CheXzero: `data_process.py` (letterbox), then `zero_shot.py`."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import PIL.Image

from serving.domain.image import Image

MEAN = np.float32(101.48761)
"""Of gray levels 0..255."""
STD = np.float32(83.43944)
_LEVELS = (np.arange(256, dtype=np.float32) - MEAN) / STD
"""(256,) float32: gray level -> the normalised value."""

PREPROCESSING_ID = "chexzero/1"
"""Changes whenever the same picture gives other numbers."""


def letterbox(image: Image, side_px: int) -> npt.NDArray[np.uint8]:
    """(side_px, side_px) uint8 gray: Lanczos to the longest side, sizes cut to whole pixels, centred on black.

    Colour pictures are resized as RGB and turned gray when they are pasted, as upstream does. A side that would vanish
    is kept at 1 pixel, where upstream fails.
    """
    picture = PIL.Image.fromarray(image.pixels)
    ratio = float(side_px) / max(picture.size)
    width, height = (max(int(length * ratio), 1) for length in picture.size)
    canvas = PIL.Image.new("L", (side_px, side_px))
    small = picture.resize((width, height), PIL.Image.Resampling.LANCZOS)
    canvas.paste(small, ((side_px - width) // 2, (side_px - height) // 2))
    return np.asarray(canvas, np.uint8)


def prepare(image: Image, letterbox_px: int, side_px: int) -> npt.NDArray[np.float32]:
    """(3, side_px, side_px) float32: letterbox, normalise on the scale 0..255, and only then resize.

    The resize is bicubic without antialias, as torchvision 0.11 did on tensors.
    """
    gray = np.take(_LEVELS, letterbox(image, letterbox_px))
    if side_px != letterbox_px:
        weights = bicubic_weights(letterbox_px, side_px)
        gray = weights @ gray @ weights.T
    return np.repeat(gray[None], 3, axis=0)


@cache
def bicubic_weights(given_px: int, wanted_px: int) -> npt.NDArray[np.float32]:
    """(wanted_px, given_px) float32, read-only: what each sample takes from each given one, along one axis.

    Keys' kernel with a = -0.75 over four neighbours, edges repeated. Positions are PyTorch's: a float32 step, rounded to
    float32 once at the end (a fused multiply-add). With float64 positions, as in OpenCV's INTER_CUBIC, results are
    1.3e-4 away on noise; so they are 3e-6.
    """
    step = np.float64(np.float32(given_px) / np.float32(wanted_px))
    position = (step * (np.arange(wanted_px) + 0.5) - 0.5).astype(np.float32)
    first = np.floor(position)
    past = position - first
    weights = np.zeros((wanted_px, given_px), np.float32)
    for offset in (-1, 0, 1, 2):
        column = np.clip(first.astype(np.int64) + offset, 0, given_px - 1)
        np.add.at(weights, (np.arange(wanted_px), column), _keys_kernel(np.abs(past - np.float32(offset))))
    weights.setflags(write=False)
    return weights


def _keys_kernel(distance: npt.NDArray[np.float32], a: float = -0.75) -> npt.NDArray[np.float32]:
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((distance - 5) * distance + 8) * a * distance - 4 * a
    return np.asarray(np.where(distance <= 1, near, far), np.float32)
