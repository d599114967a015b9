"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped -> Volume. nibabel reads the header; the samples are taken here."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from serving.errors import Fault, Kind
from serving.imaging.bounds import check_decoded, inflate, invalid, malformed
from serving.imaging.kinds import Format, sniff
from serving.imaging.volume import Check, Volume, three_axes
from serving.settings import LimitSettings

_GZIP_WBITS = 31
_HEADER_BYTES = 544
_LENGTHS = tuple(length.to_bytes(4, order) for length in (348, 540) for order in ("little", "big"))
"""How a header begins: `sizeof_hdr` of NIfTI-1 and NIfTI-2, in either byte order."""
_MM_A_UNIT = {"mm": 1.0, "micron": 1e-3, "meter": 1e3, "unknown": 1.0}
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def read(data: bytes, limits: LimitSettings, check: Check | None = None) -> Volume:
    """A .nii or .nii.gz file -> Volume, decompressed no further than its header says.

    `check`: is given the header's shape and dtype before anything is decompressed.

    Raises Fault: UNSUPPORTED_MEDIA (gzip of something else, header without its data), MALFORMED, TOO_LARGE, INVALID
    (colour, complex or four-dimensional samples).
    """
    zipped = sniff(data) is Format.NIFTI_GZIP
    start = inflate(data, limits, wbits=_GZIP_WBITS, at_most=_HEADER_BYTES) if zipped else data[:_HEADER_BYTES]
    header = _header(start)
    shape = three_axes(tuple(int(n) for n in header.get_data_shape()))
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise invalid("the NIfTI file's samples are colours or complex numbers: send real samples of 64 bits at most")
    if check is not None:
        check(shape, dtype)
        sizes = _header(start, repair=False)["pixdim"][1:4]
        if not (np.isfinite(sizes) & (sizes != 0)).all():
            raise invalid("the NIfTI header's pixdim is zero or not finite: write the voxel sizes in mm")
    offset = int(header["vox_offset"])
    if offset < 0:
        raise malformed("the NIfTI header's vox_offset must not be negative")
    end = offset + check_decoded(shape, dtype.itemsize, limits)
    check_decoded((end,), 1, limits)
    plain = inflate(data, limits, wbits=_GZIP_WBITS, at_most=end) if zipped else data
    if len(plain) < end:
        raise malformed("the NIfTI file is cut short: it has fewer samples than its header says")
    samples = np.frombuffer(plain, dtype, int(np.prod(shape)), offset).reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    return Volume(
        samples.astype(dtype.newbyteorder("="), copy=False),
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
        *_geometry(header),
        affine=_affine(header),
    )


def _header(start: bytes, repair: bool = True) -> Any:
    """The header, told by its magic. nibabel's `repair` makes voxel sizes of 0 to 1, for pictures of a slice alone."""
    if sniff(start) is not Format.NIFTI:
        if start[:4] in _LENGTHS and len(start) < 348:
            raise malformed("the NIfTI file is cut short: it ends within its header")
        raise Fault(
            Kind.UNSUPPORTED_MEDIA, "the gzip file holds no NIfTI volume, the one kind that may be gzipped", param="image"
        )
    if start[4:7] == b"ni2" or start[344:347] == b"ni1":
        raise Fault(
            Kind.UNSUPPORTED_MEDIA, "this NIfTI header keeps its data in another file: send a single .nii", param="image"
        )
    second = start[4:7] == b"n+2"
    length = 540 if second else 348
    reader: Any = Nifti2Header if second else Nifti1Header
    return reader.from_fileobj(BytesIO(start[:length].ljust(length + 4, b"\0")), check=repair)


def _geometry(header: Any) -> tuple[tuple[float, float, float] | None, npt.NDArray[np.float64] | None]:
    """Spacing in mm and unit directions in LPS (NIfTI's world is RAS), each None where the header holds none."""
    unit = _MM_A_UNIT.get(header.get_xyzt_units()[0], 1.0)
    columns = header.get_best_affine()[:3, :3]
    zooms = [float(z) * unit for z in header.get_zooms()[:3]]
    x, y, z = (*zooms, 1.0)[:3]
    spacing = (x, y, z) if all(np.isfinite(s) and s > 0 for s in (x, y, z)) else None
    lengths = np.linalg.norm(columns, axis=0)
    known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    if not known or not np.isfinite(lengths).all() or (lengths == 0).any():
        return spacing, None
    return spacing, ((columns / lengths).T * _RAS_TO_LPS).astype(np.float64)


def _affine(header: Any) -> npt.NDArray[np.float64] | None:
    """Voxel index -> mm in RAS: the sform, else the qform, else the voxel sizes alone; None where it is no geometry."""
    affine = np.asarray(header.get_best_affine(), np.float64)[:3] * _MM_A_UNIT.get(header.get_xyzt_units()[0], 1.0)
    degenerate = not np.isfinite(affine).all() or abs(np.linalg.det(affine[:, :3])) < 1e-12
    return None if degenerate else affine
