"""Pixels as the two serving procedures hand them to the image tower: CLIP's and CheXzero's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from serving.demonstration.draw import Pixels

Plane = npt.NDArray[np.float32]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CHEXZERO_MEAN, CHEXZERO_STD, CHEXZERO_SIDE = 101.48761, 83.43944, 320


def clip_plane(pixels: Pixels, size: int) -> Plane:
    """A square drawing to (size, size) f32, 0 to 255, by PIL's bicubic filter."""
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC), np.float32)


def chexzero_plane(pixels: Pixels, size: int) -> Plane:
    """A square drawing to (size, size) f32, on the 0 to 255 scale: Lanczos to 320, then bicubic without antialias.

    CheXzero normalises between the two; the filter's weights add up to 1, so doing it afterwards is the same.
    """
    side = (CHEXZERO_SIDE, CHEXZERO_SIDE)
    large = np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.LANCZOS), np.float32)
    small = F.interpolate(torch.from_numpy(large)[None, None], size=(size, size), mode="bicubic", align_corners=False)
    return np.asarray(small[0, 0].numpy(), np.float32)


def clip_normalised(planes: Tensor) -> Tensor:
    """(B, S, S) of 0 to 255 to (B, 3, S, S)."""
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    return (planes[:, None] / 255 - mean) / std


def chexzero_normalised(planes: Tensor) -> Tensor:
    """(B, S, S) of 0 to 255 to (B, 3, S, S)."""
    return ((planes[:, None] - CHEXZERO_MEAN) / CHEXZERO_STD).expand(-1, 3, -1, -1)


PROCEDURES: Mapping[str, tuple[Callable[[Pixels, int], Plane], Callable[[Tensor], Tensor]]] = {
    "clip": (clip_plane, clip_normalised),
    "chexzero": (chexzero_plane, chexzero_normalised),
}


def prepared(pictures: Sequence[Pixels], size: int, procedure: str) -> Tensor:
    """Drawings to normalised pixels (n, 3, size, size) f32 by "clip" or "chexzero"."""
    plane, normalised = PROCEDURES[procedure]
    return normalised(torch.from_numpy(np.stack([plane(pixels, size) for pixels in pictures])))
