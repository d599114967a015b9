"""From the network's positions to a box: relative distances, first guess, refinement, and the way back to the stored array.

openmedlab/MedLSAM, `Relative_distance` and `predic_corner_cor`. Points are (n, 3) voxels of the padded 3 mm volume (z, y, x).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from serving.families.medlsam.anchors import POINTS
from serving.families.medlsam.orientation import Orientation
from serving.families.medlsam.resample import SPACING_MM, factors

PATCH = 64
"""Side of what the network sees, voxels."""
HALF = PATCH // 2
"""Padding on every side, and from a patch's first voxel to its centre."""
RANGE_MM = (1500.0, 600.0, 600.0)
"""Largest relative distance along z, y, x."""
CROPS = 10
"""Patches around the volume's centre whose positions are averaged."""
REACH = 10
"""How far their centres lie from it, voxels: from -10 to 9 along each axis."""
AIR = 0.001
"""A centre darker than this is not taken."""
TRIES = 10_000
SEED = 2023

Floats = npt.NDArray[Any]


def padded(volume: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Zeros on all sides, half a patch each."""
    return np.pad(volume, HALF)


def patch(volume: npt.NDArray[Any], centre: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(64, 64, 64) around a voxel of a padded volume, which becomes the voxel 32 of the patch along each axis."""
    low = [int(each) - HALF for each in centre]
    return volume[tuple(slice(each, each + PATCH) for each in low)]


def centres(volume: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(10, 3): drawn around the centre of a padded volume with upstream's seed, afresh for each volume.

    Where all around the centre is air the centre itself is taken: upstream would draw for ever.
    """
    draw = np.random.RandomState(SEED)
    middle = np.array(volume.shape) // 2
    # A centre this near an edge would have no whole patch.
    low, high = np.maximum(middle - REACH, HALF), np.minimum(middle + REACH, np.array(volume.shape) - HALF)
    found: list[npt.NDArray[np.int64]] = []
    for _ in range(TRIES):
        if len(found) == CROPS:
            break
        point = np.array([draw.randint(a, max(b, a + 1)) for a, b in zip(low, high, strict=True)])
        if volume[tuple(point)] >= AIR:
            found.append(point)
    return np.array(found or [np.maximum(middle, HALF)])


def relative_mm(support: Floats, query: Floats) -> Floats:
    """Network positions (n, 3) of the support's points and (3,) of the query -> (n, 3) mm from the query to the points."""
    return np.asarray(np.array(RANGE_MM) * np.tanh(support - query))


def guess(relative: Floats, start: Floats, size: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """(n, 3) voxels: the query's mean centre, (3,) voxels, and (n, 3) mm from there; held where a whole patch fits."""
    place = np.round((relative + start * SPACING_MM) / SPACING_MM)
    return np.asarray(np.clip(place, HALF, np.array(size) - HALF - 1), np.int64)


def refinement(best: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where in the patch (n, 3) the similarity is largest -> how far the point moves, voxels."""
    return np.asarray(best - HALF + 1, np.int64)


def boxes(points: npt.NDArray[np.int64], orientation: Orientation) -> npt.NDArray[np.int64]:
    """(6 m, 3) points of a padded 3 mm volume -> (m, 2, 3): lowest and highest index along each axis of the stored array.

    Held within the array. Lower and higher points that are crossed are put in order, as upstream's real extreme points are.
    """
    zoom = factors(orientation.spacing_mm)
    corners = np.array([[[six[3 * side + axis, axis] for axis in range(3)] for side in range(2)] for six in _sixes(points)])
    in_frame = np.around((corners - HALF) / zoom)
    stored = np.rint(orientation.stored(in_frame.reshape(-1, 3))).astype(np.int64).reshape(-1, 2, 3)
    held = np.clip(stored, 0, np.array(orientation.size) - 1)
    return np.stack([held.min(1), held.max(1)], axis=1)


def _sixes(points: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return points.reshape(-1, POINTS, 3)
