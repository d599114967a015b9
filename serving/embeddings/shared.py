"""One task for all who want the same result at the same time; nothing is kept once it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class _Flight(Generic[T]):
    task: asyncio.Future[T]
    waiters: int = 0


class Shared(Generic[T]):
    """Work by key, for results that depend on the key alone: what it raises goes to all who wait. One event loop."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}

    async def run(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        """The result of the work under way for this key, or of `make`. It is cancelled when the last who waits has left."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(make()))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if self._flights.get(key) is flight and (flight.task.done() or not flight.waiters):
                del self._flights[key]
            if not flight.waiters:
                flight.task.cancel()
