"""Limits of untrusted files, held before memory is spent: sizes from headers, and decompression that stops."""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

from serving.errors import Fault, Kind
from serving.settings import LimitSettings

_PIECE_BYTES = 1 << 16
_STEP_BYTES = 1 << 20


def malformed(message: str) -> Fault:
    """The fault of a file that cannot be read."""
    return Fault(Kind.MALFORMED, message, param="image")


def invalid(message: str, field: str = "image") -> Fault:
    """The fault of a file or view that can be read and cannot be answered."""
    return Fault(Kind.INVALID, message, param=field)


def check_picture(columns: int, rows: int, limits: LimitSettings) -> None:
    """Refuse a picture whose header declares no pixels, or more than `max_pixels`. Raises Fault."""
    if columns < 1 or rows < 1:
        raise malformed("the image's header declares no pixels: width and height must be 1 or more")
    if columns * rows > limits.max_pixels:
        raise Fault(
            Kind.TOO_LARGE,
            f"the image is {columns} x {rows} pixels; the limit max_pixels is {limits.max_pixels}: send a smaller picture",
            param="image",
        )


def check_decoded(shape: Iterable[int], itemsize: int, limits: LimitSettings) -> int:
    """Bytes that an array of a header's shape takes, or the fault that it is above `max_decoded_bytes`."""
    needed = math.prod(shape) * itemsize
    if needed > limits.max_decoded_bytes:
        raise _too_many_bytes(limits)
    return needed


def inflate(data: bytes | memoryview, limits: LimitSettings, *, wbits: int, at_most: int | None = None) -> bytes:
    """Deflated bytes -> at most `at_most` plain bytes; what follows them is not decompressed.

    `wbits` as zlib's: 31 gzip (several members in a row are one stream), -15 raw deflate. Without `at_most` everything is
    wanted, and more than `max_decoded_bytes` is Fault(TOO_LARGE). Raises Fault(MALFORMED) on damage.
    """
    return _expand(bytes(data), lambda: _Zlib(wbits), b"\x1f\x8b" if wbits == 31 else None, limits, at_most)


def inflate_bzip2(data: bytes | memoryview, limits: LimitSettings, *, at_most: int | None = None) -> bytes:
    """As `inflate`, for bzip2."""
    return _expand(bytes(data), bz2.BZ2Decompressor, b"BZh", limits, at_most)


class _Stream(Protocol):
    """What zlib's and bz2's decompressors share once `_Zlib` keeps the input it has not used."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """zlib's decompressor with bz2's manners: input that did not fit is kept, not handed back."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        plain = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self.needs_input = len(plain) < max_length
        return plain


def _expand(
    data: bytes, fresh: Callable[[], _Stream], magic: bytes | None, limits: LimitSettings, at_most: int | None
) -> bytes:
    bound = limits.max_decoded_bytes + 1 if at_most is None else at_most
    plain, at, stream = bytearray(), 0, fresh()
    try:
        while len(plain) < bound:
            piece = data[at : at + _PIECE_BYTES] if stream.needs_input else b""
            if stream.needs_input and not piece:
                break
            at += len(piece)
            plain += stream.decompress(piece, min(_STEP_BYTES, bound - len(plain)))
            if stream.eof:
                at, stream = at - len(stream.unused_data), fresh()
                if magic is None or not data.startswith(magic, at):
                    break
    except (zlib.error, OSError) as exc:
        raise malformed("the image's compressed data is damaged: it cannot be decompressed") from exc
    if at_most is None and len(plain) > limits.max_decoded_bytes:
        raise _too_many_bytes(limits)
    return bytes(plain)


def _too_many_bytes(limits: LimitSettings) -> Fault:
    return Fault(
        Kind.TOO_LARGE,
        f"the image decodes to more than max_decoded_bytes, {limits.max_decoded_bytes} bytes: send fewer slices or frames",
        param="image",
    )
