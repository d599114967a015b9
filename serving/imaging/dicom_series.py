"""A DICOM series -> Volume: slices sorted along their normal, checked, then decoded one by one into one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from serving.domain.image import LinearWindow, Window
from serving.imaging import dicom_lut, dicom_stack
from serving.imaging.bounds import check_picture, invalid, malformed
from serving.imaging.dicom import stored
from serving.imaging.dicom_file import ends_early, header, parse
from serving.imaging.dicom_frame import frame_of, macro
from serving.imaging.dicom_stack import Place
from serving.imaging.volume import Check, Volume
from serving.settings import LimitSettings


@dataclass(frozen=True, eq=False)
class _Slice:
    """One frame of one file. `head`: its data set without pixels."""

    file: int
    index: int
    head: Dataset
    place: Place


def read(files: Sequence[bytes], limits: LimitSettings, check: Check) -> Volume:
    """The files of one series, in any order -> Volume [column, row, slice], slices in the direction of the normal.

    The normal is the cross product of the row and column cosines (PS3.3 C.7.6.2.1.1). Slices of one rescale keep their stored
    values; others (PET) become float32. Raises Fault, with slice numbers and never a name.
    """
    slices = _sorted([piece for n, data in enumerate(files) for piece in _headers(n, data, limits)])
    first = slices[0].head
    _check_alike(slices)
    rows, columns = int(first.Rows), int(first.Columns)
    check_picture(columns, rows, limits)
    luts = [dicom_lut.modality_lut(piece.head, piece.index) for piece in slices]
    one_scale = all(isinstance(lut, dicom_lut.Rescale) and lut == luts[0] for lut in luts)
    dtype = _dtype(first) if one_scale else np.dtype(np.float32)
    check((columns, rows, len(slices)), dtype)
    samples = np.empty((len(slices), rows, columns), dtype)
    for n, (data, piece) in enumerate(_with_pixels(files, slices, limits)):
        values = _gray(data, piece, n)
        samples[n] = values if one_scale else luts[n](values)
    scale = luts[0] if one_scale and isinstance(luts[0], dicom_lut.Rescale) else dicom_lut.Rescale()
    spacing, directions, affine = dicom_stack.geometry([piece.place for piece in slices], frame_of(first, slices[0].index))
    middle = slices[len(slices) // 2]
    return Volume(
        samples.transpose(2, 1, 0),
        scale.slope,
        scale.intercept,
        spacing,
        directions,
        affine,
        _window(middle.head, middle.index),
        frame_of(first, 0).modality,
    )


def _headers(file: int, data: bytes, limits: LimitSettings) -> list[_Slice]:
    head = header(data, limits)
    if "Rows" not in head or "Columns" not in head:
        if ends_early(head):
            raise malformed(f"file {file}, as sent from 0, is cut short: it ends before its pixel data; send it whole")
        raise invalid(f"file {file}, as sent from 0, is DICOM without pictures: send the image files of one series alone")
    frames = max(1, int(head.get("NumberOfFrames") or 1))
    return [_Slice(file, n, head, dicom_stack.place_of(head, n)) for n in range(frames)]


def _sorted(slices: list[_Slice]) -> list[_Slice]:
    """Along the normal; one file without positions (a multi-frame one) keeps its own order."""
    if all(piece.place.position is None for piece in slices) and len({piece.file for piece in slices}) == 1:
        return slices
    normal = dicom_stack.common_normal([piece.place for piece in slices])
    return sorted(slices, key=lambda piece: dicom_stack.along(piece.place, normal))


def _check_alike(slices: list[_Slice]) -> None:
    """One series, one size, one pixel spacing, even gaps. Raises Fault(INVALID)."""
    first = slices[0]
    for what, of in (("series", _series), ("size", _size), ("pixel spacing", _spacing)):
        odd = [n for n, piece in enumerate(slices) if of(piece) != of(first)]
        if odd:
            few = odd if len(odd) <= len(slices) // 2 else [n for n in range(len(slices)) if n not in odd]
            raise invalid(f"the slices are of more than one {what}: {_numbers(few)} differ; send one {what} at a time")
    dicom_stack.check_even([piece.place for piece in slices])


def _series(piece: _Slice) -> str:
    return str(piece.head.get("SeriesInstanceUID") or "")


def _size(piece: _Slice) -> tuple[int, int]:
    return int(piece.head.Rows), int(piece.head.Columns)


def _spacing(piece: _Slice) -> tuple[float, ...]:
    return tuple(round(s, 4) for s in frame_of(piece.head, piece.index).spacing_mm or ())


def _with_pixels(files: Sequence[bytes], slices: list[_Slice], limits: LimitSettings) -> Any:
    """(data set with pixels, slice) in order; the last file read is kept, for multi-frame files."""
    opened, number = None, -1
    for piece in slices:
        if piece.file != number:
            opened, number = parse(files[piece.file], limits), piece.file
        yield opened, piece


def _gray(dataset: Dataset, piece: _Slice, number: int) -> npt.NDArray[Any]:
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise malformed(f"slice {number} is cut short: it ends before or within its pixel data; send its file whole")
    values, photometric = stored(dataset, piece.index)
    if photometric != "MONOCHROME2" or values.shape != _size(piece):
        raise invalid(f"slice {number} is not MONOCHROME2 of the size that its header says: send gray slices")
    return values


def _dtype(head: Dataset) -> np.dtype[Any]:
    bits = int(head.get("BitsAllocated") or 16)
    if bits not in (1, 8, 16, 32):
        return np.dtype(np.float64) if bits == 64 else np.dtype(np.int32)
    if bits == 32 and "PixelRepresentation" not in head:
        return np.dtype(np.float32)
    kind = "i" if int(head.get("PixelRepresentation") or 0) == 1 else "u"
    return np.dtype(f"{kind}{max(1, bits // 8)}")


def _window(head: Dataset, index: int) -> Window | None:
    """The first window that the middle slice states, as center and width (PS3.3 C.11.2.1.2); None where it states none."""
    source = macro(head, index, "FrameVOILUTSequence")
    center, width = _number(source.get("WindowCenter")), _number(source.get("WindowWidth"))
    if center is None or width is None or not np.isfinite([center, width]).all() or width <= 1:
        return None
    exact = str(source.get("VOILUTFunction") or "LINEAR").strip() != "LINEAR"
    return LinearWindow(center, width) if exact else LinearWindow(center - 0.5, width - 1)


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value if not hasattr(value, "__len__") or isinstance(value, str) else value[0])


def _numbers(found: Sequence[int]) -> str:
    return "slices " + ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
