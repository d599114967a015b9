"""Volumes (z, y, x) to 3 mm along each axis: values by cubic splines, label maps by the largest linear share.

openmedlab/MedLSAM, `data_process/data_process_func.py`: `scipy.ndimage.zoom` and `resize_Multi_label_to_given_shape`. Both are
separable, so that slices are shrunk one at a time and no second volume of full size is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

SPACING_MM = 3.0

Plane = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def factors(spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """What each axis is zoomed by, from spacing in mm along (z, y, x)."""
    return np.array(spacing_mm, np.float64) / SPACING_MM


def values_at_3mm(
    volume: npt.NDArray[Any], spacing_mm: tuple[float, float, float], units: Plane = np.asarray
) -> npt.NDArray[np.float64]:
    """(z, y, x) -> (round(z f), round(y f), round(x f)). `units`: a slice's stored samples -> values."""
    from scipy import ndimage  # a third of a second, which replicas without this model need not spend at their start

    along_z, *across = factors(spacing_mm)
    planes = np.stack([ndimage.zoom(np.asarray(units(plane), np.float64), across, order=3) for plane in volume])
    return np.asarray(ndimage.zoom(planes, (along_z, 1, 1), order=3))


def labels_at_3mm(labels: npt.NDArray[Any], spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.int32]:
    """(z, y, x) whole numbers -> (floor(z f), floor(y f), floor(x f)): at each place the label that is most there.

    Each label's mask is interpolated trilinearly, voxel centres on half-voxels (PyTorch's `align_corners=False` with the factor
    given); of equal shares the lower label wins.
    """
    z, y, x = (_linear(size, factor) for size, factor in zip(labels.shape, factors(spacing_mm), strict=True))
    share = np.full((len(z), len(y), len(x)), -1.0, np.float32)
    found = np.zeros(share.shape, np.int32)
    for label in np.unique(labels):
        planes = np.stack([y @ (plane == label).astype(np.float32) @ x.T for plane in labels])
        here = np.tensordot(z, planes, axes=1)
        found[here > share] = label
        share = np.maximum(share, here)
    return found


def _linear(size: int, factor: float) -> npt.NDArray[np.float32]:
    """(floor(size x factor), size): the weights that each new voxel gives to the old ones."""
    new = max(int(np.floor(size * factor)), 1)
    place = np.maximum((np.arange(new) + 0.5) / factor - 0.5, 0.0)
    low = np.minimum(place.astype(np.int64), size - 1)
    high, above = np.minimum(low + 1, size - 1), (place - low).astype(np.float32)
    weights = np.zeros((new, size), np.float32)
    np.add.at(weights, (np.arange(new), low), 1 - above)
    np.add.at(weights, (np.arange(new), high), above)
    return weights
