"""Who calls, how urgently and until when: read from HTTP headers or gRPC metadata alike."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from serving.domain.request import Deadline, Priority
from serving.edge import auth
from serving.errors import Fault, Kind
from serving.settings import Settings

MAX_ID_CHARS = 128


@dataclass(frozen=True)
class Caller:
    """What a request says of itself outside its body."""

    request_id: str
    tenant: str
    priority: Priority
    deadline: Deadline
    trace: str = ""


def traceparent(headers: Mapping[str, str]) -> str:
    """The caller's trace context (W3C Trace Context), as it came; empty where there is none."""
    return headers.get("traceparent", "")


def request_id(headers: Mapping[str, str]) -> str:
    """The caller's X-Request-ID where it is 1 to 128 printable ASCII characters, else a new one."""
    given = headers.get("x-request-id", "").strip()
    if 0 < len(given) <= MAX_ID_CHARS and given.isascii() and given.isprintable():
        return given
    return uuid.uuid4().hex


def caller(headers: Mapping[str, str], ident: str, settings: Settings, timeout_s: float | None = None) -> Caller:
    """The caller of a request. `headers`: lower-case names; `timeout_s`: what the transport says is left, if it does.

    Raises Fault: UNAUTHENTICATED, INVALID (priority, deadline), DEADLINE where it has passed already.
    """
    return Caller(
        ident,
        auth.tenant(headers.get("authorization"), settings.auth),
        priority(headers.get("x-priority")),
        deadline(headers.get("x-deadline-ms"), settings, timeout_s),
        traceparent(headers),
    )


def priority(given: str | None) -> Priority:
    """X-Priority; interactive where absent. Raises Fault(INVALID)."""
    try:
        return Priority((given or Priority.INTERACTIVE.value).strip().lower())
    except ValueError as exc:
        raise Fault(Kind.INVALID, "x-priority must be interactive or bulk", param="x-priority") from exc


def deadline(given_ms: str | None, settings: Settings, timeout_s: float | None = None) -> Deadline:
    """The earlier of X-Deadline-Ms and the transport's own, else the default; never later than the longest allowed.

    Raises Fault: INVALID where it is no number, DEADLINE where nothing is left.
    """
    asked = [] if timeout_s is None else [timeout_s]
    if given_ms is not None:
        try:
            asked.append(float(given_ms) / 1000)
        except ValueError as exc:
            raise Fault(Kind.INVALID, "x-deadline-ms must be a number of milliseconds", param="x-deadline-ms") from exc
    limits = settings.limits
    # NaN compares false with everything: let Deadline.after refuse it before min() can hide it.
    made = [Deadline.after(seconds) for seconds in asked]
    if any(each.remaining_s() <= 0 for each in made):
        raise Fault(Kind.DEADLINE, "the deadline had passed when the request arrived", param="deadline")
    seconds = min(asked, default=limits.default_deadline_s)
    return Deadline.after(min(seconds, limits.max_deadline_s))
