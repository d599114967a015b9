"""Masks as a picture. Needs Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Okabe and Ito's, which most colour-blind readers can tell apart."""
OPACITY = 0.45


def overlay(picture: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]]) -> npt.NDArray[np.uint8]:
    """(rows, columns, 3) uint8 with each mask (rows, columns) laid over in its colour."""
    mixed = picture.astype(np.float32)
    for n, mask in enumerate(masks):
        mixed[mask] = (1 - OPACITY) * mixed[mask] + OPACITY * np.asarray(COLOURS[n % len(COLOURS)], np.float32)
    return np.rint(mixed).astype(np.uint8)


def write_masks(target: Path, image: Path | npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]]) -> bool:
    """Write the masks over the image; on black where it is of another size, or a file that Pillow cannot read: then False.

    `image`: its file, or its pixels (rows, columns) or (rows, columns, 3). Raises ValueError where there is no mask to draw,
    or where Pillow is not installed.
    """
    if not masks:
        raise ValueError("there is no mask to draw")
    try:
        from PIL import Image
    except ImportError as exc:
        raise ValueError("writing a picture needs Pillow: pip install pillow") from exc
    ground = _picture(image) if isinstance(image, Path) else image
    if ground is not None and ground.ndim == 2:
        ground = np.repeat(ground[..., None], 3, axis=2)
    known = ground is not None and ground.shape[:2] == masks[0].shape
    black = np.zeros((*masks[0].shape, 3), np.uint8)
    Image.fromarray(overlay(ground if ground is not None and known else black, masks)).save(target)
    return known


def _picture(image: Path) -> npt.NDArray[np.uint8] | None:
    """(rows, columns, 3) of a file that Pillow reads, turned as viewers show it, or None."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    with warnings.catch_warnings(action="ignore"):  # a DICOM file may begin like a TIFF that Pillow then complains of
        try:
            with Image.open(image) as opened:
                return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        except UnidentifiedImageError:
            return None
