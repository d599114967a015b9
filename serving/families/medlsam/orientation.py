"""Arrays as stored <-> upstream's frame: axes (z, y, x) of LAS, that is x to the left, y forward, z up.

openmedlab/MedLSAM, `data_process/data_process_func.py` (`reorient`, `load_and_pre_ct`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from serving.errors import Fault, Kind

CODES = "LAS"


@dataclass(frozen=True, eq=False)
class Orientation:
    """How one array [i, j, k] turns into (z, y, x). `turn`: nibabel's (3, 2), axis and flip of each stored axis.

    `size`: of the stored array; `spacing_mm` along (z, y, x).
    """

    turn: npt.NDArray[np.float64]
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    def turned(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """[i, j, k] -> (z, y, x). A view."""
        view: npt.NDArray[Any] = apply_orientation(stored, self.turn)  # type: ignore[no-untyped-call]
        return view.transpose(2, 1, 0)

    def stored(self, points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Points (n, 3) in voxels of (z, y, x) -> (n, 3) in voxels of [i, j, k]."""
        back = inv_ornt_aff(self.turn, self.size)  # type: ignore[no-untyped-call]
        return np.asarray(points[:, ::-1] @ back[:3, :3].T + back[:3, 3], np.float64)


def orientation(affine: npt.NDArray[np.float64] | None, size: tuple[int, int, int]) -> Orientation:
    """Of an affine, three or four rows of four: voxel -> mm in RAS. Raises Fault(INVALID) where there is none."""
    if affine is None:
        raise Fault(Kind.INVALID, "the volume does not say how it lies in space: send one with its geometry", param="volume")
    whole = np.vstack([np.asarray(affine, np.float64)[:3], [0, 0, 0, 1]])
    stored = nibabel.io_orientation(whole)  # type: ignore[no-untyped-call]
    turn = ornt_transform(stored, axcodes2ornt(CODES))  # type: ignore[no-untyped-call]
    spacing = np.linalg.norm(whole[:3, :3], axis=0)
    of_axis = {int(axis): float(spacing[number]) for number, (axis, _) in enumerate(turn)}
    return Orientation(turn, size, (of_axis[2], of_axis[1], of_axis[0]))
