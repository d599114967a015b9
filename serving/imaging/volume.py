"""Volumes and their slices.

Convention: a volume is an array [i, j, k] as stored, i fastest. Of the two axes that a slice keeps, the lower one runs to
the right (columns) and the higher one down (rows)::

    axis 2, index k:  pixels[row=j, column=i] = volume[i, j, k]
    axis 1, index j:  pixels[row=k, column=i] = volume[i, j, k]
    axis 0, index i:  pixels[row=k, column=j] = volume[i, j, k]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.image import Frame, Image, LinearWindow, View, Window
from serving.domain.volume import VolumeFrame
from serving.imaging import window
from serving.imaging.bounds import check_picture, invalid
from serving.imaging.levels import Levels
from serving.imaging.view import choose
from serving.settings import LimitSettings

Check = Callable[[tuple[int, int, int], "np.dtype[Any]"], None]
"""Raises Fault where a header's shape and dtype are more than is taken."""


@dataclass(frozen=True, eq=False)
class Volume:
    """`samples`: (i, j, k), any real dtype, as stored. A value is samples * slope + intercept.

    `spacing_mm`: of the three axes, or None. `directions`: (3, 3), row n the unit vector of axis n in patient space, LPS, or
    None. `affine`: three rows of four, voxel index -> mm in RAS, or None. `stated`: the file's own window in those units.
    """

    samples: npt.NDArray[Any]
    slope: float = 1.0
    intercept: float = 0.0
    spacing_mm: tuple[float, float, float] | None = None
    directions: npt.NDArray[np.float64] | None = None
    affine: npt.NDArray[np.float64] | None = None
    stated: Window | None = None
    modality: str = ""

    @property
    def frame(self) -> VolumeFrame:
        """Where the voxels lie."""
        i, j, k = (int(n) for n in self.samples.shape)
        rows = None if self.affine is None else tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in self.affine)
        return VolumeFrame((i, j, k), self.spacing_mm, rows, self.modality)

    def slice(self, axis: int, index: int) -> npt.NDArray[Any]:
        """One slice's stored samples (rows, columns). A view: numpy's take would copy the whole volume first."""
        found: npt.NDArray[Any] = np.moveaxis(self.samples, axis, 0)[index].T
        return found

    def values(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Stored samples -> values in the file's units; the same dtype where the file scales nothing, else float64."""
        if self.slope == 1.0 and self.intercept == 0.0:
            return samples
        return samples.astype(np.float64) * self.slope + self.intercept


def picture(volume: Volume, view: View, limits: LimitSettings) -> Image:
    """The slice that a view asks for, after its window, or `window.DEFAULT` without one.

    Percentiles and extremes are those of the whole volume, so slices compare. Raises Fault(INVALID) on a missing or wrong
    index, with the number of slices; Fault(TOO_LARGE).
    """
    index = choose(view, volume.samples.shape[view.axis], "slice")
    across, down = (axis for axis in range(3) if axis != view.axis)
    columns, rows = volume.samples.shape[across], volume.samples.shape[down]
    check_picture(columns, rows, limits)
    wanted = view.window or window.DEFAULT
    everything = Levels(np.zeros(0)) if isinstance(wanted, LinearWindow) else Levels.of(volume.samples).mapped(volume.values)
    slice_ = volume.slice(view.axis, index)
    pixels = np.ascontiguousarray(window.stretch(volume.values(slice_), window.span(wanted, everything)))
    return Image(pixels, _frame(volume, across, down))


def three_axes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A header's shape as (i, j, k): trailing axes of length 1 fall away or are added. Raises Fault(INVALID)."""
    kept = list(shape)
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    if not 2 <= len(kept) <= 3 or min(kept) < 1:
        sizes = " x ".join(str(n) for n in shape)
        raise invalid(f"the volume has the shape {sizes}: send one volume of three axes, each 1 or longer")
    i, j, k = (*kept, 1)[:3]
    return i, j, k


def _frame(volume: Volume, across: int, down: int) -> Frame:
    shape, spacing, directions = volume.samples.shape, volume.spacing_mm, volume.directions
    size_px = (int(shape[across]), int(shape[down]))
    spacing_mm = None if spacing is None else (spacing[across], spacing[down])
    if directions is None:
        return Frame(size_px, spacing_mm)
    right, below = directions[across], directions[down]
    orientation = (float(right[0]), float(right[1]), float(right[2]), float(below[0]), float(below[1]), float(below[2]))
    return Frame(size_px, spacing_mm, orientation)
