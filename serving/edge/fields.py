"""Typed reading of a plain mapping (JSON, form fields, protobuf as a mapping). Every fault names the field."""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from serving.errors import Fault, Kind

SHOWN_CHARS = 40


def invalid(param: str, right: str) -> Fault:
    """The fault of a field whose value is wrong; `right` says what would be right."""
    return Fault(Kind.INVALID, f"{param} {right}", param=param)


def shown(text: str) -> str:
    """A client's own word, safe to repeat in a one-line message."""
    clean = "".join(c if c.isprintable() else "?" for c in text[:SHOWN_CHARS])
    return clean + ("..." if len(text) > SHOWN_CHARS else "")


class Fields:
    """A mapping whose keys are checked at once. `where`: the path of the mapping itself, "" for the body.

    A field that is null counts as absent. Raises Fault(MALFORMED) where the source is no mapping, Fault(INVALID) for an
    unknown key and, in the readers, for a value of the wrong type.
    """

    def __init__(self, source: object, where: str, known: Sequence[str]) -> None:
        if not isinstance(source, Mapping):
            place = where or "the body"
            raise Fault(Kind.MALFORMED, f"{place} must be an object with the fields {', '.join(known)}", param=where or None)
        self._source = source
        self._where = where
        for key in source:
            if key not in known:
                word = shown(str(key))
                message = f"unknown field {word} in {where or 'the body'}; known are {', '.join(known)}"
                raise Fault(Kind.INVALID, message, param=self.param(word))

    def param(self, name: str) -> str:
        """The path of a field."""
        return f"{self._where}.{name}" if self._where else name

    def get(self, name: str) -> Any:
        """The value as it is, or None."""
        return self._source.get(name)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._source.get(name) is not None

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise invalid(self.param(name), "must be a string")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise invalid(self.param(name), "must be true or false")
        return value

    def integer(self, name: str) -> int | None:
        """A whole number, or None."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(self.param(name), "must be a whole number")
        return value

    def number(self, name: str) -> float | None:
        """A number, or None."""
        value = self.get(name)
        return None if value is None else number(value, self.param(name))

    def items(self, name: str) -> Sequence[Any]:
        """A list; empty where absent."""
        value = self.get(name)
        return () if value is None else sequence(value, self.param(name), "must be a list")

    def binary(self, name: str) -> bytes | None:
        """Bytes, or base64 text, or None. Raises Fault(MALFORMED) where the text is not base64."""
        value = self.get(name)
        return None if value is None else binary(value, self.param(name))


def number(value: object, param: str) -> float:
    """A number as float. Raises Fault(INVALID)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(param, "must be a number")
    return float(value)


def sequence(value: object, param: str, right: str) -> Sequence[Any]:
    """A list or tuple. Raises Fault(INVALID) that says what would be right."""
    if not isinstance(value, list | tuple):
        raise invalid(param, right)
    return value


def binary(value: object, param: str) -> bytes:
    """Bytes as they are, or decoded from base64 text (RFC 4648 section 4, padded)."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise invalid(param, "must be base64 text")
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as exc:
        raise Fault(Kind.MALFORMED, f"{param} is not valid base64", param=param) from exc
