"""What an answer need not wait for: it is counted and logged when it is on its way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


def after_answer(work: Callable[..., object], *arguments: Any) -> None:
    """Call `work` when the event loop comes round again: an answer that is written without waiting goes first.

    On one machine what is noted of a click takes a quarter of the front's time for it (docs/decisions/0037). A failure is
    logged here: the event loop would write down the arguments with it, and a request is among them.
    """
    asyncio.get_running_loop().call_soon(_do, work, arguments)


def _do(work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    try:
        work(*arguments)
    except Exception:
        log.exception("what is noted after an answer could not be")
