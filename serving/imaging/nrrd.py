"""NRRD with header and data in one file -> Volume. pynrrd reads the header; the samples are taken here, within the limits.

Headers that name another file (``data file:``) are refused: a request must never read this machine's disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from nrrd import read_header

from serving.errors import Fault, Kind
from serving.imaging.bounds import check_decoded, inflate, inflate_bzip2, invalid, malformed
from serving.imaging.volume import Check, Volume, three_axes
from serving.settings import LimitSettings

MAX_HEADER_BYTES = 1 << 20
"""Longest header; real ones have a few hundred bytes."""

_DTYPES: dict[str, str] = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_TO_LPS = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1.0, -1.0, 1.0)),
}


def read(data: bytes, limits: LimitSettings, check: Check | None = None) -> Volume:
    """A .nrrd file (raw, gzip or bzip2) -> Volume, decompressed no further than its header says.

    `check`: is given the header's shape and dtype before anything is decompressed.

    Raises Fault: UNSUPPORTED_MEDIA (data in another file, other encodings), MALFORMED, TOO_LARGE, INVALID (more than three
    axes).
    """
    head, body = _split(data)
    header = read_header([line + "\n" for line in head.decode("ascii", "replace").splitlines()])
    if any(name in header for name in ("data file", "datafile")):
        raise Fault(Kind.UNSUPPORTED_MEDIA, "this NRRD header keeps its data in another file: send one .nrrd", param="image")
    if any(header.get(name, 0) for name in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise Fault(Kind.UNSUPPORTED_MEDIA, "NRRD files that skip lines or bytes are not read: send plain .nrrd", param="image")
    sizes = tuple(int(n) for n in header["sizes"])
    if len(sizes) != int(header["dimension"]):
        raise malformed("the NRRD header's sizes do not match its dimension")
    shape = three_axes(sizes)
    dtype = _dtype(header)
    if check is not None:
        check(shape, dtype)
    needed = check_decoded(shape, dtype.itemsize, limits)
    plain = _plain(body, str(header["encoding"]).lower(), needed, limits)
    if len(plain) < needed:
        raise malformed("the NRRD file is cut short: it has fewer samples than its header says")
    samples = np.frombuffer(plain, dtype, int(np.prod(shape))).reshape(shape, order="F")
    native = samples.astype(dtype.newbyteorder("="), copy=False)
    return Volume(native, 1.0, 0.0, *_geometry(header), affine=_affine(header))


def _split(data: bytes) -> tuple[bytes, memoryview]:
    """Header and data, which a blank line parts."""
    for blank in (b"\n\n", b"\r\n\r\n"):
        at = data.find(blank, 0, MAX_HEADER_BYTES)
        if at >= 0:
            return data[:at], memoryview(data)[at + len(blank) :]
    raise malformed("the NRRD header has no end: a blank line must part it from the data")


def _dtype(header: Any) -> np.dtype[Any]:
    code = _DTYPES.get(str(header["type"]).lower())
    if code is None:
        raise invalid("the NRRD file's type is not one of real samples, such as short or float")
    order = {"little": "<", "big": ">"}.get(str(header.get("endian", "little")).lower())
    if order is None:
        raise malformed("the NRRD header's endian must be little or big")
    return np.dtype(order + code)


def _plain(body: memoryview, encoding: str, needed: int, limits: LimitSettings) -> bytes | memoryview:
    match encoding:
        case "raw":
            return body
        case "gzip" | "gz":
            return inflate(body, limits, wbits=31, at_most=needed)
        case "bzip2" | "bz2":
            return inflate_bzip2(body, limits, at_most=needed)
        case _:
            raise Fault(Kind.UNSUPPORTED_MEDIA, "the NRRD encoding is not read: send raw, gzip or bzip2", param="image")


def _geometry(header: Any) -> tuple[tuple[float, float, float] | None, npt.NDArray[np.float64] | None]:
    """Spacing in mm and unit directions in LPS, each None where the header holds none or they are in another unit."""
    units = header.get("space units", header.get("units")) or []
    if any(unit not in ("mm", "") for unit in units):
        return None, None
    vectors = header.get("space directions")
    if vectors is None:
        spacings = [float(s) for s in header.get("spacings", ())]
        return (_positive(spacings), None)
    axes = np.asarray(vectors, np.float64)
    if axes.shape != (3, 3):
        return None, None
    lengths = np.linalg.norm(axes, axis=1)
    spacing = _positive([float(n) for n in lengths])
    flip = _TO_LPS.get(str(header.get("space", "")).lower())
    if spacing is None or flip is None:
        return spacing, None
    return spacing, axes / lengths[:, None] * np.array(flip)


def _affine(header: Any) -> npt.NDArray[np.float64] | None:
    """Voxel index -> mm in RAS, or None where the header holds no directions in a space that is known."""
    spacing, directions = _geometry(header)
    if spacing is None or directions is None:
        return None
    flip = np.array(_TO_LPS[str(header["space"]).lower()])
    origin = np.asarray(header.get("space origin", (0.0, 0.0, 0.0)), np.float64)
    if origin.shape != (3,) or not np.isfinite(origin).all():
        return None
    lps = np.column_stack([(directions * np.array(spacing)[:, None]).T, origin * flip])
    affine: npt.NDArray[np.float64] = lps * np.array([-1.0, -1.0, 1.0])[:, None]
    return affine


def _positive(lengths: list[float]) -> tuple[float, float, float] | None:
    if not lengths or not all(np.isfinite(n) and n > 0 for n in lengths):
        return None
    x, y, z = (*lengths, 1.0, 1.0)[:3]
    return x, y, z
