"""The closed set of faults. One table: kind -> HTTP status, gRPC status, retry, whose fault it is.

Everything that can go wrong for a user is a `Fault` of one `Kind`. Foreign exceptions are turned into a Fault at the
boundary that met them (``raise Fault(...) from exc``). Messages are one line, name the field and say what would be right;
they never hold a path, a stack trace, a pixel value or patient data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row of the table: how a kind of fault looks on each wire.

    `grpc` is the name of a ``grpc.StatusCode``; `outcome` is the bounded metric label (``client_error``, ``shed``,
    ``deadline`` or ``server_error``).
    """

    code: str
    http: int
    grpc: str
    retryable: bool
    outcome: str


class Kind(Enum):
    """Every kind of fault that medserve knows."""

    MALFORMED = Row("malformed", 400, "INVALID_ARGUMENT", False, "client_error")
    UNSUPPORTED_MEDIA = Row("unsupported_media", 415, "INVALID_ARGUMENT", False, "client_error")
    INVALID = Row("invalid", 422, "INVALID_ARGUMENT", False, "client_error")
    TOO_LARGE = Row("too_large", 413, "INVALID_ARGUMENT", False, "client_error")
    UNKNOWN_MODEL = Row("unknown_model", 404, "NOT_FOUND", False, "client_error")
    UNKNOWN_HANDLE = Row("send_image_again", 404, "NOT_FOUND", False, "client_error")
    NOT_FOUND = Row("not_found", 404, "NOT_FOUND", False, "client_error")
    NOT_ALLOWED = Row("method_not_allowed", 405, "UNIMPLEMENTED", False, "client_error")
    UNAUTHENTICATED = Row("unauthenticated", 401, "UNAUTHENTICATED", False, "client_error")
    FORBIDDEN = Row("forbidden", 403, "PERMISSION_DENIED", False, "client_error")
    OVER_QUOTA = Row("over_quota", 429, "RESOURCE_EXHAUSTED", True, "shed")
    POOL_FULL = Row("pool_full", 503, "UNAVAILABLE", True, "shed")
    DEADLINE = Row("deadline_exceeded", 504, "DEADLINE_EXCEEDED", False, "deadline")
    CANCELLED = Row("cancelled", 499, "CANCELLED", False, "client_error")
    ENGINE_UNAVAILABLE = Row("engine_unavailable", 503, "UNAVAILABLE", True, "server_error")
    ENGINE_FAILED = Row("engine_failed", 502, "INTERNAL", True, "server_error")
    INTERNAL = Row("internal", 500, "INTERNAL", False, "server_error")

    @property
    def row(self) -> Row:
        """This kind's row of the table."""
        return self.value


class Fault(Exception):
    """A failure that a user is told about.

    `message`: one line, what was wrong and what would be right. `param`: the request's field, or None. `retry_after_s`:
    seconds to wait before trying again, for the retryable kinds.
    """

    def __init__(self, kind: Kind, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.kind, self.message, self.param, self.retry_after_s))


def _rebuild(kind: Kind, message: str, param: str | None, retry_after_s: float | None) -> Fault:
    return Fault(kind, message, param=param, retry_after_s=retry_after_s)


class SetupError(Exception):
    """A failure of set-up on this machine (missing wheel, port taken, model not built): one line for the operator.

    Never raised while a request is answered. The command line prints the message and exits with status 1.
    """
