"""Pixels -> the image encoder's input, by a checkpoint's generation.

SAM's own and MedSAM's of April 2023 (`ResizeLongestSide`, `Sam.preprocess` of facebookresearch/segment-anything): longest
side to 1024, SAM's mean and standard deviation, zeros to the right and below. MedSAM's since July 2023 (bowang-lab/MedSAM,
`MedSAM_Inference.py`): squashed to 1024 x 1024 by cubic splines, minimum..maximum to 0..1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from serving.domain.image import Image
from serving.families.procedure import SAM_MEAN, SAM_STD, ModelInput, Scale, longest_side_px, min_max, placed

SIDE_PX = 1024
"""Side of the model's square frame."""

JULY = "july-2023"
"""The one generation that squashes; all others keep the longest side."""
LONGEST_SIDE_ID = "longest-side-1024-bilinear-sam-mean-std-pad/1"
SQUASH_ID = "squash-1024-cubic-minmax/1"
"""Names of the two in the Features' key: change one when its result changes."""


def longest_side(image: Image) -> ModelInput:
    """PIL's bilinear resize, which shrinks without aliasing, then (x - mean) / std of 0..255 values, then zeros."""
    rows, columns = image.pixels.shape[:2]
    content_px = longest_side_px((columns, rows), SIDE_PX)
    small = np.asarray(Pillow.fromarray(image.pixels).resize(content_px, Pillow.Resampling.BILINEAR))
    colour = np.repeat(small[..., None], 3, axis=-1) if small.ndim == 2 else small
    return ModelInput(placed(_standard(colour), SIDE_PX), content_px)


def longest_side_scale(size_px: tuple[int, int]) -> Scale:
    """`ResizeLongestSide.apply_coords`: each axis by its own rounded size."""
    width, height = longest_side_px(size_px, SIDE_PX)
    return Scale(width / size_px[0], height / size_px[1])


def squash(image: Image) -> ModelInput:
    """To 1024 x 1024 whatever the aspect, then minimum..maximum of all channels to 0..1.

    Between the two the spline's overshoots are held within the picture's own values and the result is cut to whole levels.
    """
    pixels = image.pixels
    channels = [pixels] if pixels.ndim == 2 else [pixels[..., channel] for channel in range(3)]
    large = np.stack([_spline(channel.astype(np.float64)) for channel in channels], axis=-1)
    small = np.clip(large, pixels.min(), pixels.max()).astype(np.uint8)
    return ModelInput(placed(min_max(small), SIDE_PX), (SIDE_PX, SIDE_PX))


def squash_scale(size_px: tuple[int, int]) -> Scale:
    """`box / [W, H, W, H] * 1024`."""
    return Scale(SIDE_PX / size_px[0], SIDE_PX / size_px[1])


def normalised(pixels: npt.NDArray[np.float32], preprocessing: str) -> npt.NDArray[np.float32]:
    """(1, 3, 1024, 1024) float32 in 0..1 as the encoder of that preprocessing is fed it."""
    if preprocessing == JULY:
        return pixels
    return _standard(255 * pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _standard(colour: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(..., 3) RGB, 0..255."""
    return np.asarray((colour.astype(np.float32) - np.array(SAM_MEAN, np.float32)) / np.array(SAM_STD, np.float32))


def _spline(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(rows, columns) -> (1024, 1024), as `skimage.transform.resize(order=3, anti_aliasing=True)` before it clips.

    That is SciPy's Gaussian of (factor - 1) / 2 along an axis that shrinks, then SciPy's cubic zoom.
    """
    factors = [size / SIDE_PX for size in values.shape]
    from scipy import ndimage  # see medlsam/resample.py

    smooth = ndimage.gaussian_filter(values, [max(0.0, (factor - 1) / 2) for factor in factors], mode="mirror")
    return np.asarray(ndimage.zoom(smooth, [1 / factor for factor in factors], order=3, mode="mirror", grid_mode=True))
