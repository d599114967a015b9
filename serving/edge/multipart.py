"""multipart/form-data (RFC 7578) that lies in memory as a whole -> its parts. One copy of each part, no temporary files."""

from __future__ import annotations

from dataclasses import dataclass
from email.errors import MessageError
from email.message import Message
from email.parser import BytesHeaderParser

from serving.errors import Fault, Kind

MAX_PARTS = 256
_HEAD_BYTES = 8192


@dataclass(frozen=True)
class Part:
    """One part: its form name, whether it is a file, its own media type ("" where not said) and its content."""

    name: str
    is_file: bool
    media_type: str
    data: bytes


def boundary(content_type: str) -> bytes:
    """The boundary that a Content-Type header names. Raises Fault(MALFORMED)."""
    header = Message()
    header["content-type"] = content_type
    found = header.get_boundary()
    if not found or not found.isascii() or len(found) > 70:
        raise Fault(Kind.MALFORMED, "multipart/form-data needs a boundary in Content-Type", param="content-type")
    return found.encode("ascii")


def split(body: bytes, mark: bytes, most: int = MAX_PARTS) -> list[Part]:
    """The parts between the boundary lines, at most `most`. Raises Fault(MALFORMED)."""
    pieces = (b"\r\n" + body).split(b"\r\n--" + mark, most + 2)
    if len(pieces) > most + 2:
        raise Fault(Kind.MALFORMED, f"the multipart body has too many parts: at most {most}", param="body")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise Fault(Kind.MALFORMED, "the multipart body is cut off: it does not end with its boundary", param="body")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, blank, data = piece.partition(b"\r\n\r\n")
    if not blank or len(head) > _HEAD_BYTES:
        raise Fault(Kind.MALFORMED, "a part of the multipart body has no headers", param="body")
    try:
        headers = BytesHeaderParser().parsebytes(head.lstrip(b" \t\r\n") + b"\r\n\r\n")
    except (MessageError, ValueError) as exc:
        raise Fault(Kind.MALFORMED, "a part of the multipart body has headers that cannot be read", param="body") from exc
    name = headers.get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise Fault(Kind.MALFORMED, "a part of the multipart body has no name", param="body")
    media_type = headers.get_content_type() if headers["content-type"] else ""
    return Part(name, headers.get_filename() is not None, media_type, data)
