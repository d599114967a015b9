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
    if format is MaskFormat.RLE and box:
        data = _rle_within(gray, box[0], box[2])
    else:
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


def _rle_within(gray: Bytes, left: int, right: int) -> bytes:
    """The same of a mask that is empty outside the columns left..right, of which there is at least one; `right` is behind them.

    Only these columns are looked at, and one more if there is one: then they end in a run of zeros. The zeros before and behind
    belong to the first and the last run, whose numbers are written anew; the first two runs and the last are no other's base
    (COCO writes a run as its difference from the last but one).
    """
    rows, columns = gray.shape
    end = min(right + 1, columns)
    counts = _rle(gray[:, left:end])
    first = next(at for at, byte in enumerate(counts) if not byte - 48 & 32) + 1
    counts = _number(_value(counts[:first]) + left * rows) + counts[first:]
    if end == columns:
        return counts
    last = next(at for at in range(len(counts) - 1, 0, -1) if not counts[at - 1] - 48 & 32)
    return counts[:last] + _number(_value(counts[last:]) + (columns - end) * rows)


def _value(written: bytes) -> int:
    """A number in COCO's letters: five bits each, the lowest first, 32 where more follow, 48 above; the highest is its sign."""
    found = sum((byte - 48 & 31) << 5 * at for at, byte in enumerate(written))
    return found - (1 << 5 * len(written)) if written[-1] - 48 & 16 else found


def _number(value: int) -> bytes:
    """The reverse of `_value`, as short as it goes."""
    letters = bytearray()
    while True:
        low, value = value & 31, value >> 5
        more = value != (-1 if low & 16 else 0)
        letters.append(48 + low + 32 * more)
        if not more:
            return bytes(letters)


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
