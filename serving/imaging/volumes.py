"""Whole volumes: bytes -> voxels with their geometry, held against the budget before anything is decoded. Blocking."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.image import LinearWindow, Window
from serving.domain.volume import EncodedVolume
from serving.errors import Fault, Kind
from serving.imaging import dicom_series, nifti, nrrd, window
from serving.imaging.archive import files_of, is_zip
from serving.imaging.decode import RUST_PANIC
from serving.imaging.kinds import Format, sniff
from serving.imaging.levels import Levels, is_narrow
from serving.imaging.order import Ordered
from serving.imaging.volume import Volume
from serving.settings import LimitSettings, VolumeSettings

ACCEPTED = "NIfTI (.nii, .nii.gz), NRRD, DICOM (one series as files, as a ZIP or as one multi-frame file)"
"""The kinds that are read, in words, for messages."""
_DICOM = "application/dicom"


class Slices:
    """A volume's slices as pictures, windowed as they are asked for: no second copy of the volume is made.

    `window`: the request's, above the file's own, above 40/400 for CT, above `window.DEFAULT`. Percentiles and extremes are
    those of the whole volume, as MedSAM's `pre_CT_MR.py` takes them.
    """

    def __init__(self, volume: Volume, chosen: Window | None, axis: int) -> None:
        self._volume, self._axis = volume, axis
        self.frame = volume.frame
        wanted = chosen or volume.stated or (LinearWindow(40, 400) if volume.modality == "CT" else window.DEFAULT)
        narrow = is_narrow(volume.samples) and not isinstance(wanted, LinearWindow)
        levels = Levels.of(volume.samples).mapped(volume.values) if narrow else Ordered(volume.samples, volume.values)
        self._span = window.span(wanted, levels)

    def pixels(self, index: int) -> npt.NDArray[np.uint8]:
        """One slice (rows, columns) uint8: see `imaging.volume` for which axis is which."""
        slice_ = self._volume.slice(self._axis, index)
        shown: npt.NDArray[np.uint8] = np.ascontiguousarray(window.stretch(self._volume.values(slice_), self._span))
        return shown


def read(encoded: EncodedVolume, limits: LimitSettings, budget: VolumeSettings) -> Volume:
    """A volume as sent -> Volume.

    Raises nothing but Fault: UNSUPPORTED_MEDIA, MALFORMED (damaged, cut short), TOO_LARGE (told from the headers),
    INVALID (no voxel sizes, slices that are missing, doubled or of another size, spacing, orientation or series).
    """
    try:
        return _read(encoded, limits, budget)
    except Fault as fault:
        raise Fault(fault.kind, fault.message, param="volume") from fault
    except MemoryError as exc:
        raise Fault(Kind.TOO_LARGE, "the volume needs more memory than there is: send a smaller one", param="volume") from exc
    except BaseException as exc:  # the boundary: parsers of untrusted files raise anything, and users are told a Fault
        if not isinstance(exc, Exception) and type(exc).__name__ != RUST_PANIC:
            raise
        raise Fault(Kind.MALFORMED, "the volume is damaged or cut short: send it whole", param="volume") from exc


def check_budget(shape: tuple[int, int, int], dtype: np.dtype[Any], compressed: bool, budget: VolumeSettings) -> None:
    """Refuse what would not fit: more voxels than are taken, or more bytes than one volume may need while it is worked on.

    Counted are the samples, what they are unpacked from, and the label map. Raises Fault(TOO_LARGE).
    """
    voxels = int(np.prod(shape, dtype=np.int64))
    if voxels > budget.max_voxels:
        size = " x ".join(str(n) for n in shape)
        message = f"the volume has {size} voxels; the limit volumes.max_voxels is {budget.max_voxels}: send fewer slices"
        raise Fault(Kind.TOO_LARGE, message, param="volume")
    needed = voxels * (dtype.itemsize * (1 + compressed) + 1)
    if needed > budget.memory_bytes:
        message = (
            f"the volume needs {needed >> 20} MiB to be worked on; the limit volumes.memory_bytes is "
            f"{budget.memory_bytes >> 20} MiB: send fewer slices or fewer bits a voxel"
        )
        raise Fault(Kind.TOO_LARGE, message, param="volume")


def _read(encoded: EncodedVolume, limits: LimitSettings, budget: VolumeSettings) -> Volume:
    files = encoded.files
    roomy = limits.model_copy(update={"max_decoded_bytes": max(limits.max_decoded_bytes, budget.memory_bytes)})
    if len(files) == 1 and is_zip(files[0]):
        files = files_of(files[0], budget)
    if len(files) == 1 and not _is_dicom(files[0], encoded.media_type):
        return _single(files[0], roomy, budget)
    strangers = [str(n) for n, file in enumerate(files) if not _is_dicom(file, encoded.media_type)]
    if strangers:
        message = f"several files must be the DICOM files of one series; not DICOM, as sent from 0: {_listed(strangers)}"
        raise Fault(Kind.UNSUPPORTED_MEDIA, message)
    return dicom_series.read(files, roomy, partial(check_budget, compressed=True, budget=budget))


def _single(data: bytes, limits: LimitSettings, budget: VolumeSettings) -> Volume:
    kind = sniff(data)
    match kind:
        case Format.NIFTI | Format.NIFTI_GZIP:
            check = partial(check_budget, compressed=kind is Format.NIFTI_GZIP, budget=budget)
            return nifti.read(data, limits, check)
        case Format.NRRD:
            return nrrd.read(data, limits, partial(check_budget, compressed=True, budget=budget))
        case _:
            raise Fault(Kind.UNSUPPORTED_MEDIA, f"the content is no volume that is read; accepted are {ACCEPTED}")


def _is_dicom(data: bytes, media_type: str) -> bool:
    found = sniff(data)
    return found is Format.DICOM or (found is None and media_type.split(";", 1)[0].strip().lower() == _DICOM)


def _listed(numbers: list[str]) -> str:
    return ", ".join(numbers[:8]) + (", ..." if len(numbers) > 8 else "")
