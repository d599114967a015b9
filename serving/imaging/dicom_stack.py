"""Where the slices of a DICOM series lie to each other: the normal, the order, gaps, doubles, and the affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from serving.domain.image import Frame
from serving.imaging.bounds import invalid
from serving.imaging.dicom_frame import frame_of, macro

Vector = npt.NDArray[np.float64]
COSINE_TOLERANCE = 1e-3
"""Row and column cosines of one series are equal within this."""
EVEN_TOLERANCE = 0.05
"""Gaps between slices are equal within this part of their median: positions are written with few digits."""
_RAS_FROM_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Place:
    """`position`: of the first voxel, mm, LPS (0020,0032), or None. `cosines`: rows then columns, (2, 3), or None.

    `step_mm`: Spacing Between Slices (0018,0088), or None.
    """

    position: Vector | None
    cosines: Vector | None
    step_mm: float | None = None


def place_of(dataset: Dataset, index: int) -> Place:
    """Where a frame lies."""
    position = _vector(macro(dataset, index, "PlanePositionSequence").get("ImagePositionPatient"))
    orientation = frame_of(dataset, index).orientation
    step = macro(dataset, index, "PixelMeasuresSequence").get("SpacingBetweenSlices")
    cosines = None if orientation is None else np.array(orientation, np.float64).reshape(2, 3)
    return Place(position, cosines, abs(float(step)) if step else None)


def common_normal(places: Sequence[Place]) -> Vector:
    """The normal of all slices. Raises Fault(INVALID) that names the files whose place or orientation is not the others'."""
    lost = [n for n, place in enumerate(places) if place.position is None or place.cosines is None]
    if lost:
        raise invalid(f"files without ImagePositionPatient and ImageOrientationPatient cannot be sorted: {_listed(lost)}")
    cosines = np.stack([place.cosines for place in places if place.cosines is not None])
    usual = np.median(cosines, axis=0)
    odd = np.flatnonzero(np.abs(cosines - usual).max(axis=(1, 2)) > COSINE_TOLERANCE)
    if odd.size:
        raise invalid(f"the slices are of more than one orientation: {_listed(odd)} differ (a localiser?): leave them out")
    normal = np.cross(usual[0], usual[1])
    length = float(np.linalg.norm(normal))
    if length < 0.5:
        raise invalid("ImageOrientationPatient holds no two directions: its row and column cosines must be perpendicular")
    unit: Vector = normal / length
    return unit


def along(place: Place, normal: Vector) -> float:
    """How far a slice lies along the normal, mm."""
    return 0.0 if place.position is None else float(place.position @ normal)


def check_even(places: Sequence[Place]) -> None:
    """Sorted slices must lie one after another at even gaps, on a line. Raises Fault(INVALID) that names slice numbers."""
    positions = _positions(places)
    if positions is None or len(positions) < 2:
        return
    normal = common_normal(places)
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps[gaps > 1e-3])) if (gaps > 1e-3).any() else 0.0
    double = np.flatnonzero(gaps <= max(1e-3, EVEN_TOLERANCE * usual))
    if double.size:
        pairs = ", ".join(f"{n} and {n + 1}" for n in double[:8])
        raise invalid(f"two slices lie at one place: {pairs}, counted from 0 along the normal; send each slice once")
    parts = gaps / usual
    missing = np.flatnonzero(parts > 1.5)
    if missing.size and (np.abs(parts - np.round(parts)) < 3 * EVEN_TOLERANCE).all():
        places_ = ", ".join(f"{round(parts[n]) - 1} between {n} and {n + 1}" for n in missing[:8])
        raise invalid(f"slices are missing: {places_}, counted from 0 along the normal; send the whole series")
    uneven = np.flatnonzero(np.abs(parts - 1) > EVEN_TOLERANCE)
    if uneven.size:
        pairs = ", ".join(f"{n} and {n + 1}" for n in uneven[:8])
        raise invalid(f"the spacing of the slices is mixed: it differs between {pairs}; send slices of one spacing")
    line = positions[0] + np.linspace(0, 1, len(positions))[:, None] * (positions[-1] - positions[0])
    aside = np.flatnonzero(np.linalg.norm(positions - line, axis=1) > max(0.1, 3 * EVEN_TOLERANCE * usual))
    if aside.size:
        raise invalid(f"the slices do not lie on one line: {_listed(aside)} lie aside; send one stack at a time")


def geometry(places: Sequence[Place], frame: Frame) -> tuple[tuple[float, float, float] | None, Vector | None, Vector | None]:
    """(spacing in mm, (3, 3) unit directions in LPS, affine to RAS) of sorted slices [column, row, slice], each or None.

    The third direction is that from the first to the last slice, so the shear of a tilted gantry stays in the affine.
    """
    positions, cosines = _positions(places), places[0].cosines
    step_mm = places[0].step_mm
    if positions is not None and len(positions) > 1:
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
    elif cosines is not None:
        step = np.cross(cosines[0], cosines[1]) * (step_mm or 1.0)
    else:
        step = None
    if frame.spacing_mm is None:
        return None, None, None
    x, y = frame.spacing_mm
    if step is None or cosines is None:
        return (x, y, step_mm or 1.0), None, None
    z = float(np.linalg.norm(step))
    directions = np.stack([cosines[0], cosines[1], step / z])
    if positions is None:
        return (x, y, z), directions, None
    lps = np.column_stack([cosines[0] * x, cosines[1] * y, step, positions[0]])
    return (x, y, z), directions, lps * _RAS_FROM_LPS[:, None]


def _positions(places: Sequence[Place]) -> Vector | None:
    found = [place.position for place in places if place.position is not None]
    return np.stack(found) if len(found) == len(places) else None


def _vector(value: Any) -> Vector | None:
    if value is None or isinstance(value, str | float) or len(value) != 3:
        return None
    vector = np.array([float(v) for v in value])
    return vector if np.isfinite(vector).all() else None


def _listed(numbers: Sequence[int] | npt.NDArray[Any]) -> str:
    return ", ".join(str(int(n)) for n in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
