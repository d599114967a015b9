"""Masks -> bytes as they leave, and back."""

from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from serving.domain.answer import EncodedMask
from serving.domain.request import MaskFormat
from serving.errors import Fault, Kind

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


def encode(mask: Bools, format: MaskFormat) -> EncodedMask:
    """A mask (rows, columns) bool, original frame, in the form asked for; `size_px` is (width, height).

    Polygons: one closed outline each, vertices at pixel centres, holes as further outlines: fill them all by the even-odd
    rule, outlines included, and the mask is back to the pixel. A reader that knows no holes gets them filled.
    """
    gray: Bytes = np.ascontiguousarray(mask).view(np.uint8)
    rows, columns = gray.shape
    area = int(cv2.countNonZero(gray))
    x, y, width, height = cv2.boundingRect(gray)
    box = (x, y, x + width, y + height) if area else None
    polygons = _polygons(gray) if format is MaskFormat.POLYGON else ()
    data = b"" if format is MaskFormat.POLYGON else _DATA[format](gray)
    return EncodedMask(format, (columns, rows), data, area, box, polygons)


def decode(encoded: EncodedMask) -> Bools:
    """An encoded mask -> (rows, columns) bool, original frame. Raises Fault(MALFORMED) where the data does not fit the size."""
    columns, rows = encoded.size_px
    try:
        match encoded.format:
            case MaskFormat.RLE:
                found: npt.NDArray[Any] = coco.decode({"size": [rows, columns], "counts": encoded.data})
            case MaskFormat.PNG:
                found = cv2.imdecode(np.frombuffer(encoded.data, np.uint8), cv2.IMREAD_GRAYSCALE)
            case MaskFormat.PACKED:
                packed = np.frombuffer(zlib.decompress(encoded.data), np.uint8).reshape(rows, -1)
                found = np.unpackbits(packed, axis=1, count=columns)
            case MaskFormat.POLYGON:
                outlines = [p.reshape(-1, 1, 2).round().astype(np.int32) for p in encoded.polygons]
                found = cv2.fillPoly(np.zeros((rows, columns), np.uint8), outlines, (1,))
    except (ValueError, zlib.error, cv2.error) as exc:
        raise Fault(Kind.MALFORMED, f"the mask is no {encoded.format.value} of its size", param="mask") from exc
    if found is None or found.shape != (rows, columns):
        raise Fault(Kind.MALFORMED, f"the mask is no {encoded.format.value} of its size", param="mask")
    return found.astype(bool)


def _rle(gray: Bytes) -> bytes:
    """COCO's compressed counts: runs down the columns, so the transposed array is what it wants in memory."""
    counts: bytes = coco.encode(cv2.transpose(gray).T)["counts"]
    return counts


def _png(gray: Bytes) -> bytes:
    """A PNG file of 1 bit a pixel."""
    _, file = cv2.imencode(".png", gray, [cv2.IMWRITE_PNG_BILEVEL, 1])
    return bytes(file.tobytes())


def _packed(gray: Bytes) -> bytes:
    """Rows of bits, most significant first, each row padded to a byte; deflated."""
    return zlib.compress(np.packbits(gray, axis=1).tobytes(), 1)


def _polygons(gray: Bytes) -> tuple[npt.NDArray[np.float32], ...]:
    outlines, _ = cv2.findContours(gray, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(outline.astype(np.float32).ravel() for outline in outlines)


_DATA = {MaskFormat.RLE: _rle, MaskFormat.PNG: _png, MaskFormat.PACKED: _packed}
