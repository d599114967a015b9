"""The points of a labelled structure that stand for its box: six extreme points, of the whole or of each part along z.

openmedlab/MedLSAM, `extract_fg_cor` and `divide_and_get_bounds`. Masks are (z, y, x); a point's order is lowest z, y, x, then
highest z, y, x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Points = npt.NDArray[np.int64]

MOST_PARTS = 6
POINTS = 6
"""Of one box."""


def bounds(mask: Bools) -> Points:
    """(2, 3): lowest and highest index along each axis, both included. The mask is not empty."""
    return np.array([[side(np.flatnonzero(mask.any(_others(axis)))) for axis in range(3)] for side in (np.min, np.max)])


def whole(mask: Bools) -> Points:
    """(6, 3): on the slice of each bound, the middle one of the mask's voxels in the order of storage."""
    box = bounds(mask)
    return np.array([_centre(mask, axis, int(box[side, axis])) for side in range(2) for axis in range(3)])


def parts(mask: Bools, count: int) -> Points:
    """(6 count, 3): the six points of each of `count` parts of equal height along z; the last takes the remainder.

    A part's x and y bounds are those of its own voxels, its z bounds are its ends; an empty part has the bounds of the one
    before. A point's place on its slice comes of the whole mask, from the first slice onwards that shows anything.
    """
    (bottom, *_), (top, *_) = bounds(mask)
    step = int(top - bottom) // count
    found, box = [], bounds(mask)
    for number in range(count):
        start = int(bottom) + number * step
        end = start + step if number < count - 1 else int(top)
        part = mask[start:end]
        if part.any():
            box = bounds(part)
        box[:, 0] = start, end
        found += [_shown(mask, axis, int(box[side, axis])) for side in range(2) for axis in range(3)]
    return np.array(found)


def part_count(heights: Sequence[int], interval: int) -> int:
    """Parts that a structure is split into, from its height in each support volume (highest - lowest slice); 1 is the whole."""
    least = min(heights)
    return min(least // interval, MOST_PARTS) if least > interval else 1


def points(mask: Bools, count: int) -> Points:
    """(6 max(count, 1), 3): of the parts, or of the whole where `count` is 1 because the structure is too flat to split."""
    return whole(mask) if count <= 1 else parts(mask, count)


def _others(axis: int) -> tuple[int, ...]:
    return tuple(each for each in range(3) if each != axis)


def _shown(mask: Bools, axis: int, index: int) -> npt.NDArray[np.int64]:
    """The point of the first slice from `index` onwards that shows anything, with `index` itself along the axis."""
    for each in range(index, mask.shape[axis]):
        if np.moveaxis(mask, axis, 0)[each].any():
            point = _centre(mask, axis, each)
            point[axis] = index
            return point
    raise AssertionError("a part's bounds lie at or below the mask's own")


def _centre(mask: Bools, axis: int, index: int) -> npt.NDArray[np.int64]:
    """The middle voxel of a slice, in the order (axis - 2, axis - 1) that upstream's transposition makes."""
    first, second = (axis - 2) % 3, (axis - 1) % 3
    plane: Any = mask.transpose(axis, first, second)[index]
    rows, columns = np.nonzero(plane)
    middle = len(rows) // 2
    point = np.zeros(3, np.int64)
    point[[axis, first, second]] = index, rows[middle], columns[middle]
    return point
