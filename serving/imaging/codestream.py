"""Sizes that compressed frames declare, read without decoding: a small frame must not unfold to a large one."""

from __future__ import annotations

from dataclasses import dataclass

_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_SOF = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_SOS = 0xDA
_SIZ = b"\xff\x4f\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_JP2_SEARCH_BYTES = 1 << 16


@dataclass(frozen=True)
class Size:
    """What a codestream declares: columns, rows and components (samples a pixel)."""

    columns: int
    rows: int
    components: int


def jpeg(frame: bytes) -> Size | None:
    """Of a JPEG or JPEG-LS frame (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2); None where it is none."""
    if not frame.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 10 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _NO_LENGTH:
            at += 2
        elif marker in _SOF:
            return Size(_u16(frame, at + 7), _u16(frame, at + 5), frame[at + 9])
        elif marker == _SOS:
            return None
        else:
            at += 2 + _u16(frame, at + 2)
    return None


def jpeg_2000(frame: bytes) -> Size | None:
    """Of a JPEG 2000 codestream, bare or in a JP2 file (ISO 15444-1 A.5.1); None where it is none."""
    at = frame.find(_SIZ, 0, _JP2_SEARCH_BYTES) if frame.startswith(_JP2) else 0
    if at < 0 or frame[at : at + 4] != _SIZ or len(frame) < at + 42:
        return None
    right, bottom, left, top = (_u32(frame, at + n) for n in (8, 12, 16, 20))
    return Size(right - left, bottom - top, _u16(frame, at + 40))


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
