"""Encoded bytes -> pixels in the original frame: one entry for every kind of file. Blocking; runs in a pool's threads."""

from __future__ import annotations

from serving.domain.image import EncodedImage, Image
from serving.errors import Fault, Kind
from serving.imaging import dicom, nifti, nrrd, raster, raw, volume
from serving.imaging.bounds import malformed
from serving.imaging.kinds import Format, format_of
from serving.settings import LimitSettings

RUST_PANIC = "PanicException"
"""What pyo3 makes of a panic in a decoder written in Rust (pylibjpeg-rle): no Exception, and its class cannot be imported."""


def decode(encoded: EncodedImage, limits: LimitSettings) -> Image:
    """The picture that a view of a file asks for, after its window.

    `pixels` (rows, columns) gray or (rows, columns, 3) RGB, uint8, 0..255. Raises nothing but Fault: UNSUPPORTED_MEDIA (kind
    not read, or not what the media type says), MALFORMED (damaged, cut short), TOO_LARGE (told from the header),
    INVALID (an index, window or content that cannot be answered).
    """
    kind = format_of(encoded)
    try:
        return _read(encoded, kind, limits)
    except Fault:
        raise
    except MemoryError as exc:
        raise Fault(Kind.TOO_LARGE, "the image needs more memory than there is: send a smaller one", param="image") from exc
    except BaseException as exc:  # the boundary: parsers of untrusted files raise anything, and users are told a Fault
        if not isinstance(exc, Exception) and type(exc).__name__ != RUST_PANIC:
            raise
        raise malformed(f"the {kind.value} file is damaged or cut short: send it whole") from exc


def _read(encoded: EncodedImage, kind: Format, limits: LimitSettings) -> Image:
    data, view = encoded.data, encoded.view
    match kind:
        case Format.PNG | Format.JPEG | Format.TIFF:
            return raster.read(data, kind, view, limits)
        case Format.DICOM:
            return dicom.read(data, view, limits)
        case Format.NIFTI | Format.NIFTI_GZIP:
            return volume.picture(nifti.read(data, limits), view, limits)
        case Format.NRRD:
            return volume.picture(nrrd.read(data, limits), view, limits)
        case Format.RAW:
            if encoded.raw is None:
                raise malformed("raw samples need their dtype and shape")
            return raw.read(data, encoded.raw, view, limits)
