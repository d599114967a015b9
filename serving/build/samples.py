"""Real images that a declared package ships, for the comparison that every build makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pydicom

NAMES = ("CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm")
"""CT of a spine, MR, MR of an abdomen: in pydicom's own test data."""


def path(name: str) -> Path:
    """One of pydicom's packaged files."""
    return Path(pydicom.__file__).parent / "data" / "test_files" / name


def radiology() -> list[npt.NDArray[np.float32]]:
    """Gray images (rows, columns) float32 in [0, 1]."""
    return [_stretched(pydicom.dcmread(path(name)).pixel_array) for name in NAMES]


def squared(pixels: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """(1, 3, side, side) float32 in [0, 1]."""
    resized = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    return np.repeat(resized[None, None], 3, axis=1).astype(np.float32)


def _stretched(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    low, high = np.percentile(values, [0.5, 99.5])
    return (np.clip((values - low) / (high - low), 0, 1)).astype(np.float32)
