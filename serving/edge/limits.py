"""Counts and sizes, checked against the settings before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from serving.errors import Fault, Kind
from serving.settings import LimitSettings


def body(size_bytes: int, limits: LimitSettings) -> None:
    """Raises Fault(TOO_LARGE) where a body or message is over the limit."""
    if size_bytes > limits.max_body_bytes:
        raise Fault(Kind.TOO_LARGE, f"the body is too large: at most {limits.max_body_bytes} bytes are taken", param="body")


def count(found: int, most: int, param: str) -> None:
    """Raises Fault(INVALID) where there are more than `most`."""
    if found > most:
        raise Fault(Kind.INVALID, f"{param} has {found} entries: at most {most} are taken in one call", param=param)


def late(fault: Fault, default_s: float, most_s: float) -> Fault:
    """A deadline that passed while the work went on, with what its client can do about it; any other fault as it is."""
    if fault.kind is not Kind.DEADLINE:
        return fault
    more = f"allow more time (X-Deadline-Ms, or the gRPC call's own): {default_s:g} s unless said, {most_s:g} at most"
    return Fault(Kind.DEADLINE, f"{fault.message}: {more}", param="deadline")


def texts(values: Sequence[object], limits: LimitSettings, param: str) -> tuple[str, ...]:
    """The values as text. Raises Fault(INVALID) where there are too many, one is no string or one is too long."""
    count(len(values), limits.max_labels, param)
    for value in values:
        if not isinstance(value, str):
            raise Fault(Kind.INVALID, f"{param} must be a list of strings", param=param)
        if len(value) > limits.max_text_chars:
            message = f"an entry of {param} has {len(value)} characters: at most {limits.max_text_chars} are taken"
            raise Fault(Kind.INVALID, message, param=param)
    return tuple(str(value) for value in values)
