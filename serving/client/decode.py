"""Masks on the wire -> boolean arrays, in numpy alone."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


def rle(counts: bytes, height: int, width: int) -> Bools:
    """COCO's compressed run lengths -> (height, width).

    Each number is written in groups of five bits, least significant first, as characters from ``0``; bit 5 says that more
    follow, bit 4 of the last is the sign. From the fourth on a number is the difference to the one two places before. Runs go
    down the columns and start with background.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        group = byte - 48
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    if flat.size != height * width:
        raise ValueError(f"the run lengths cover {flat.size} pixels, not {height} x {width}")
    return flat.reshape(width, height).T


def packed(data: bytes, height: int, width: int) -> Bools:
    """Deflated rows of packed bits -> (height, width)."""
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, -1)
    return np.unpackbits(rows, axis=1, count=width).astype(bool)


def volumes(data: bytes, slices: int, rows: int, columns: int) -> tuple[Bools, ...]:
    """Packed bits of several objects, each a length (8 bytes, little-endian) and a zlib stream.

    Gives (slices, rows, columns) bool of each.
    """
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        bits = np.frombuffer(zlib.decompress(data[at + 8 : at + 8 + size]), np.uint8).reshape(slices, rows, -1)
        found.append(np.unpackbits(bits, axis=2, count=columns).astype(bool))
        at += 8 + size
    return tuple(found)


def png(data: bytes) -> Bools:
    """A 1-bit PNG -> (height, width). Needs Pillow."""
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("1"), bool)


def rle_of(mask: npt.NDArray[np.generic]) -> bytes:
    """(height, width) bool -> COCO's compressed run lengths: see `rle`."""
    flat = np.concatenate([[False], np.asarray(mask, bool).T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], edges, [flat.size - 2]]))
    out = bytearray()
    for n, run in enumerate(runs.tolist()):
        value = run - (runs[n - 2] if n > 2 else 0)
        while True:
            group, value = value & 0x1F, value >> 5
            more = value != -1 if group & 0x10 else value != 0
            out.append((group | (0x20 if more else 0)) + 48)
            if not more:
                break
    return bytes(out)
