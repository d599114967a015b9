"""What kind of file bytes are: told by their magic, held against the declared media type."""

from __future__ import annotations

from enum import Enum

from serving.domain.image import EncodedImage
from serving.errors import Fault, Kind
from serving.imaging.bounds import malformed

ACCEPTED = "PNG, JPEG, TIFF, DICOM, NIfTI (.nii, .nii.gz), NRRD, or raw samples with dtype and shape"
"""The kinds that are read, in words, for messages."""


class Format(Enum):
    """A kind of file that is read; the value is its name in messages."""

    PNG = "PNG"
    JPEG = "JPEG"
    TIFF = "TIFF"
    DICOM = "DICOM"
    NIFTI = "NIfTI"
    NIFTI_GZIP = "gzip"
    NRRD = "NRRD"
    RAW = "raw samples"


_GZIPPED = frozenset({Format.NIFTI, Format.NIFTI_GZIP})
_MEDIA_TYPES: dict[str, frozenset[Format]] = {
    "image/png": frozenset({Format.PNG}),
    "image/jpeg": frozenset({Format.JPEG}),
    "image/jpg": frozenset({Format.JPEG}),
    "image/tiff": frozenset({Format.TIFF}),
    "application/dicom": frozenset({Format.DICOM}),
    "application/nifti": _GZIPPED,
    "application/x-nifti": _GZIPPED,
    "application/gzip": frozenset({Format.NIFTI_GZIP}),
    "application/x-gzip": frozenset({Format.NIFTI_GZIP}),
    "application/nrrd": frozenset({Format.NRRD}),
    "application/x-nrrd": frozenset({Format.NRRD}),
    "application/octet-stream": frozenset(Format),
    "": frozenset(Format),
}
"""Declared media type -> the formats that it may hold. Without one, or with octet-stream, content alone decides."""

_STARTS: tuple[tuple[bytes, Format], ...] = (
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"\xff\xd8\xff", Format.JPEG),
    (b"II\x2a\x00", Format.TIFF),
    (b"MM\x00\x2a", Format.TIFF),
    (b"II\x2b\x00", Format.TIFF),
    (b"MM\x00\x2b", Format.TIFF),
    (b"NRRD0", Format.NRRD),
    (b"\x1f\x8b", Format.NIFTI_GZIP),
)
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (b"\x89HDF", "HDF5"),
)
_DICM_AT = 128  # PS3.10 7.1: a preamble of 128 bytes, then "DICM"


def format_of(encoded: EncodedImage) -> Format:
    """The format of an image, by content.

    Raises Fault: UNSUPPORTED_MEDIA where the declared media type is unknown or contradicts the content, or the content is a
    known kind that is not read; MALFORMED where it is none that is known.
    """
    declared = encoded.media_type.split(";", 1)[0].strip().lower()
    allowed = _MEDIA_TYPES.get(declared)
    if allowed is None:
        raise _unsupported("the media type is not one that is read")
    found = Format.RAW if encoded.raw is not None else sniff(encoded.data)
    if found is None:
        found = _unmarked(encoded.data, allowed)
    if found not in allowed:
        raise _unsupported(f"the media type says {_names(allowed)} and the content is {found.value}")
    return found


def sniff(data: bytes) -> Format | None:
    """The format that the magic bytes tell, or None."""
    if data[_DICM_AT : _DICM_AT + 4] == b"DICM":
        return Format.DICOM
    for start, found in _STARTS:
        if data.startswith(start):
            return found
    # NIfTI-1: sizeof_hdr 348 and a magic at 344; NIfTI-2: sizeof_hdr 540 and a magic at 4.
    if data[344:347] in (b"n+1", b"ni1") or data[4:7] in (b"n+2", b"ni2"):
        return Format.NIFTI
    return None


def _unmarked(data: bytes, allowed: frozenset[Format]) -> Format:
    for start, name in _REFUSED:
        if data.startswith(start):
            raise _unsupported(f"the content is {name}")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        raise _unsupported("the content is WebP")
    if allowed == {Format.DICOM}:
        return Format.DICOM  # a data set without the preamble of PS3.10, as some archives send it
    if Format.RAW in allowed:
        raise malformed(f"the content is no image that is known; accepted are {ACCEPTED}")
    raise malformed(f"the content is no readable {_names(allowed)}")


def _names(formats: frozenset[Format]) -> str:
    return " or ".join(sorted(f.value for f in formats))


def _unsupported(why: str) -> Fault:
    return Fault(Kind.UNSUPPORTED_MEDIA, f"{why}; accepted are {ACCEPTED}", param="image")
