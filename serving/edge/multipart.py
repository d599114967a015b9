"""multipart/form-data (RFC 7578) that lies in memory as a whole -> its parts. One copy of each part, no temporary files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.errors import MessageError
from email.message import Message
from email.parser import BytesHeaderParser

from serving.errors import Fault, Kind

MAX_PARTS = 256
_HEAD_BYTES = 8192
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]+"
_PLAIN_TYPE = re.compile(r'multipart/form-data; ?boundary=(?:"([\w-]{1,70})"|([\w-]{1,70}))', re.ASCII)
_PLAIN_HEAD = re.compile(
    r'\r\n(?i:content-disposition): ?form-data; ?name="(?P<name>[\w.-]+)"(?P<file>; ?filename="[^"\\\r\n]*")?'
    rf"(?:\r\n(?i:content-type): ?(?P<type>{_TOKEN}/{_TOKEN}))?".encode(),
    re.ASCII,
)
"""The two headers of a part as nearly every client writes them: to have them read otherwise takes as long as all the rest."""


@dataclass(frozen=True)
class Part:
    """One part: its form name, whether it is a file, its own media type ("" where not said) and its content."""

    name: str
    is_file: bool
    media_type: str
    data: bytes


def boundary(content_type: str) -> bytes:
    """The boundary that a Content-Type header names. Raises Fault(MALFORMED)."""
    plain = _PLAIN_TYPE.fullmatch(content_type)
    if plain is not None:
        return (plain[1] or plain[2]).encode("ascii")
    header = Message()
    header["content-type"] = content_type
    found = header.get_boundary()
    if not found or not found.isascii() or len(found) > 70:
        raise Fault(Kind.MALFORMED, "multipart/form-data needs a boundary in Content-Type", param="content-type")
    return found.encode("ascii")


def split(body: bytes, mark: bytes, most: int = MAX_PARTS) -> list[Part]:
    """The parts between the boundary lines, at most `most`. Raises Fault(MALFORMED)."""
    line = b"\r\n--" + mark
    starts, ends = _lines(body, line, most)
    if not starts or not body.startswith(b"--", starts[-1]):
        raise Fault(Kind.MALFORMED, "the multipart body is cut off: it does not end with its boundary", param="body")
    return [_part(body, start, end) for start, end in zip(starts, ends[1:], strict=False)]


def _lines(body: bytes, line: bytes, most: int) -> tuple[list[int], list[int]]:
    """Where each boundary line ends, and where it begins; the body's first line may be one. Raises Fault(MALFORMED)."""
    starts, ends = list[int](), list[int]()
    at = -2 if body.startswith(line[2:]) else body.find(line)
    while at != -1:
        if len(starts) > most:
            raise Fault(Kind.MALFORMED, f"the multipart body has too many parts: at most {most}", param="body")
        ends.append(at)
        starts.append(at + len(line))
        at = body.find(line, starts[-1])
    return starts, ends


def _part(body: bytes, start: int, end: int) -> Part:
    blank = body.find(b"\r\n\r\n", start, end)
    if blank < 0 or blank - start > _HEAD_BYTES:
        raise Fault(Kind.MALFORMED, "a part of the multipart body has no headers", param="body")
    name, is_file, media_type = _head(body[start:blank])
    return Part(name, is_file, media_type, body[blank + 4 : end])


def _head(head: bytes) -> tuple[str, bool, str]:
    """(form name, whether it is a file, media type). The email package reads what is not written as browsers and curl do."""
    plain = _PLAIN_HEAD.fullmatch(head)
    if plain is not None:
        return plain["name"].decode("ascii"), plain["file"] is not None, (plain["type"] or b"").decode("ascii").lower()
    try:
        headers = BytesHeaderParser().parsebytes(head.lstrip(b" \t\r\n") + b"\r\n\r\n")
    except (MessageError, ValueError) as exc:
        raise Fault(Kind.MALFORMED, "a part of the multipart body has headers that cannot be read", param="body") from exc
    name = headers.get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise Fault(Kind.MALFORMED, "a part of the multipart body has no name", param="body")
    media_type = headers.get_content_type() if headers["content-type"] else ""
    return name, headers.get_filename() is not None, media_type
