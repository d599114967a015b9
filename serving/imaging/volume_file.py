"""Masks of a volume -> a file: a label map as NIfTI or NRRD in the original geometry, or packed bits of each object."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass, field
from typing import Any

import nibabel
import nrrd
import numpy as np
import numpy.typing as npt

from serving.domain.volume import FoundObject, VolumeFormat, VolumeFrame

_LEVEL = 1
MEDIA_TYPES = {
    VolumeFormat.NIFTI: "application/gzip",
    VolumeFormat.NRRD: "application/nrrd",
    VolumeFormat.PACKED: "application/octet-stream",
}
NAMES = {VolumeFormat.NIFTI: "mask.nii.gz", VolumeFormat.NRRD: "mask.nrrd", VolumeFormat.PACKED: "mask.packed"}


@dataclass
class _Count:
    voxels: int = 0
    slices: list[int] = field(default_factory=list)


class Collector:
    """Takes the masks of one volume as they are made, in any order of slices, and writes the file at the end.

    A label map holds object n as n + 1; where objects overlap the later one stays, as in LiteMedSAM's script. Packed bits keep
    every object apart and only what is foreground in memory.
    """

    def __init__(self, frame: VolumeFrame, axis: int, objects: int, output: VolumeFormat) -> None:
        self._frame, self._axis, self._output = frame, axis, output
        self._counts = [_Count() for _ in range(objects)]
        self._rows: list[dict[int, bytes]] = [{} for _ in range(objects)]
        dtype = np.uint8 if objects <= 255 else np.uint16
        packed = output is VolumeFormat.PACKED
        # Fortran order, as files have it: a slice of the last axis lies in one piece.
        self._labels: npt.NDArray[Any] | None = None if packed else np.zeros(frame.size, dtype, order="F")

    def add(self, index: int, number: int, mask: npt.NDArray[np.bool_]) -> None:
        """The mask (rows, columns) bool of an object on a slice."""
        area = int(np.count_nonzero(mask))
        if not area:
            return
        self._counts[number].voxels += area
        self._counts[number].slices.append(index)
        if self._labels is None:
            self._rows[number][index] = zlib.compress(np.packbits(mask, axis=1).tobytes(), _LEVEL)
            return
        place = np.moveaxis(self._labels, self._axis, 0)[index].T
        np.maximum(place, mask.astype(place.dtype) * (number + 1), out=place)

    def objects(self) -> tuple[FoundObject, ...]:
        """What was found of each object."""
        return tuple(
            FoundObject(n, each.voxels, min(each.slices, default=None), max(each.slices, default=None))
            for n, each in enumerate(self._counts)
        )

    def file(self) -> bytes:
        """The whole result. See `docs/volumes.md` for the packed form."""
        match self._output:
            case VolumeFormat.NIFTI:
                return nifti_file(self._map(), self._frame)
            case VolumeFormat.NRRD:
                return nrrd_file(self._map(), self._frame)
            case VolumeFormat.PACKED:
                return b"".join(self._packed(number) for number in range(len(self._rows)))

    def _map(self) -> npt.NDArray[Any]:
        assert self._labels is not None
        return self._labels

    def _packed(self, number: int) -> bytes:
        """The length of one zlib stream (8 bytes, little-endian), then the stream: slices x rows x ceil(columns / 8) bytes."""
        columns, rows = self._frame.slice_frame(self._axis).size_px
        empty = bytes(rows * -(-columns // 8))
        stream = zlib.compressobj(_LEVEL)
        pieces = []
        for index in range(self._frame.slices(self._axis)):
            held = self._rows[number].get(index)
            pieces.append(stream.compress(empty if held is None else zlib.decompress(held)))
        data = b"".join([*pieces, stream.flush()])
        return len(data).to_bytes(8, "little") + data


def nifti_file(labels: npt.NDArray[Any], frame: VolumeFrame) -> bytes:
    """A label map [i, j, k] -> a gzipped NIfTI-1 file with the volume's affine (its spacing alone where it has none)."""
    image: Any = nibabel.Nifti1Image(labels, _affine(frame))  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), _LEVEL, mtime=0)


def nrrd_file(labels: npt.NDArray[Any], frame: VolumeFrame) -> bytes:
    """A label map [i, j, k] -> an NRRD file (gzip) in LPS."""
    header: dict[str, Any] = {"encoding": "gzip"}
    if frame.affine is not None:
        lps = np.array(frame.affine) * np.array([-1.0, -1.0, 1.0])[:, None]
        header |= {
            "space": "left-posterior-superior",
            "space directions": lps[:, :3].T,
            "space origin": lps[:, 3],
            "space units": ["mm"] * 3,
        }
    elif frame.spacing_mm is not None:
        header |= {"spacings": list(frame.spacing_mm)}
    buffer = io.BytesIO()
    nrrd.write(buffer, labels, header, compression_level=_LEVEL)
    return buffer.getvalue()


def _affine(frame: VolumeFrame) -> npt.NDArray[np.float64]:
    affine = np.eye(4)
    if frame.affine is not None:
        affine[:3] = frame.affine
    elif frame.spacing_mm is not None:
        affine[:3, :3] = np.diag(frame.spacing_mm)
    return affine
