"""What Triton's errors are here: told by their status and by the words of its messages."""

from __future__ import annotations

import logging
from typing import Any

from serving.domain.request import Deadline
from serving.errors import Fault, Kind

log = logging.getLogger(__name__)

RETRY_AFTER_S = 2.0
FEATURES_ARE_GONE = "features are gone"
QUEUE_IS_FULL = "Exceeds maximum queue size"
WAITED_TOO_LONG = "Request timeout expired"
REGION_IS_IN_USE = "currently in use"
REGION_IS_UNKNOWN = "Unable to find shared memory region"


def fault_of(exc: Any, engine: str, deadline: Deadline) -> Fault:
    """The Fault of a call to an engine that Triton refused, gave up, or never answered."""
    status, message = exc.status() or "", exc.message() or ""
    if QUEUE_IS_FULL in message:
        return Fault(Kind.POOL_FULL, "the engine's queue is full: try again later", retry_after_s=RETRY_AFTER_S)
    if WAITED_TOO_LONG in message:
        return Fault(Kind.DEADLINE, "the deadline passed in the engine's queue", param="deadline")
    if FEATURES_ARE_GONE in message:
        return Fault(Kind.UNKNOWN_HANDLE, "the image's Features are gone: send the image again", param="image_id")
    if "DEADLINE_EXCEEDED" in status:
        if deadline.remaining_s() <= 0.001:
            return Fault(Kind.DEADLINE, "the deadline passed inside the engine", param="deadline")
        return Fault(
            Kind.ENGINE_UNAVAILABLE,
            "the engine did not answer within triton.call_timeout_s: it is busy, or hangs",
            retry_after_s=RETRY_AFTER_S,
        )
    if is_away(exc):
        return unavailable()
    log.error("engine %s failed: %s", engine, message)
    return Fault(Kind.ENGINE_FAILED, "the engine failed on this request; the server's log has the details")


def is_away(exc: Any) -> bool:
    """Whether the server could not be reached, or went during the call."""
    status = exc.status() or ""
    return "UNAVAILABLE" in status or "CANCELLED" in status


def unavailable() -> Fault:
    """The server is away; it is started again."""
    return Fault(
        Kind.ENGINE_UNAVAILABLE, "the engine's server is away and will be back: try again", retry_after_s=RETRY_AFTER_S
    )
