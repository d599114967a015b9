"""The one exception of the client."""

from __future__ import annotations

from serving.errors import Kind

RETRYABLE = frozenset(kind.row.code for kind in Kind if kind.row.retryable) | {"unreachable"}
"""Codes of docs/errors.md that may go well another time, and the client's own for a server that does not answer."""


class MedserveError(Exception):
    """The server's refusal, or that there was no answer.

    `code`: as in docs/errors.md, or "unreachable"; `status`: HTTP's number or gRPC's name; `param`: the field at fault;
    `retry_after`: seconds, where the server named them; `request_id`: to find it in the server's log.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int | str,
        retry_after: float | None = None,
        param: str | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.param = param
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def retryable(self) -> bool:
        """Whether the same request may go well later."""
        return self.code in RETRYABLE

    def wait_s(self, attempt: int) -> float:
        """How long to wait before the next attempt (counted from 0): the server's wish, else doubling from 0.1 s."""
        return self.retry_after if self.retry_after is not None else min(0.1 * 2**attempt, 5.0)


def unreachable(address: str) -> MedserveError:
    """Nobody answered."""
    return MedserveError("unreachable", f"no answer from {address}: is the server up?", 0)


def late(status: int | str) -> MedserveError:
    """The client's own clock ran out."""
    return MedserveError("deadline_exceeded", "no answer in time: allow more with deadline_s (--deadline of a command)", status)


def nobody_behind(status: int | str) -> MedserveError:
    """A proxy answered in the server's place: no replica takes the call, or the one that had it is gone."""
    return MedserveError("unreachable", "nobody behind the server's proxy answers now: try again", status)


def unreadable(status: int | str) -> MedserveError:
    """Somebody answered who is not medserve."""
    return MedserveError("unreadable", "the answer is not medserve's: is this its address?", status)


def waiting(retry_after: str | None) -> float | None:
    """Retry-After in seconds; None where there is none, or a date, which medserve does not send."""
    try:
        return None if retry_after is None else max(float(retry_after), 0.0)
    except ValueError:
        return None
