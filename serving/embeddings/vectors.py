"""Small vectors kept by key: a byte-bounded LRU with a time to live, and each vector made once for all who wait for it.

Everything runs on one event loop and needs no lock. Least recently used is also first to expire, since every use renews
the time to live.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from serving.errors import Fault, Kind

Outcome = Literal["hit", "miss", "coalesced"]
Array = npt.NDArray[np.float32]

ENTRY_BYTES = 512
"""What an entry costs beside its values: key, array object, bookkeeping."""


@dataclass
class VectorStats:
    """What a store holds now (`bytes`, `entries`), and how many entries left for want of room or by age."""

    bytes: int = 0
    entries: int = 0
    evictions: int = 0
    _reported: int = 0

    def take_evictions(self) -> int:
        """How many entries left since this was last asked."""
        fresh, self._reported = self.evictions - self._reported, self.evictions
        return fresh


@dataclass(eq=False)
class _Held:
    value: Array
    used_at_s: float


@dataclass(eq=False)
class _Flight:
    """One call that makes the values of some keys, and how many wait for any of them."""

    task: asyncio.Task[dict[str, Array]]
    keys: tuple[str, ...]
    waiters: int = 0


class VectorStore:
    """float32 arrays by key, at most `budget_bytes` with their overhead, each until `ttl_s` seconds after its last use.

    What is larger than the whole budget is given to those who waited and not kept. Values are read-only.
    """

    def __init__(self, budget_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget_bytes = budget_bytes
        self.ttl_s = ttl_s
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._stats = VectorStats()

    @property
    def stats(self) -> VectorStats:
        """Counts for the metrics, as of now."""
        self._expire()
        return self._stats

    def get(self, key: str) -> Array | None:
        """The value of a key, used now, or None."""
        self._expire()
        held = self._held.get(key)
        if held is None:
            return None
        held.used_at_s = self._clock()
        self._held.move_to_end(key)
        return held.value

    async def get_or_make(self, key: str, make: Callable[[], Awaitable[Array]]) -> tuple[Array, Outcome]:
        """The value of a key: held, or made once for all who wait for it. See `get_or_make_all`."""

        async def one(missing: Sequence[int]) -> Sequence[Array]:
            return [await make()]

        (value,), outcome = await self.get_or_make_all((key,), one)
        return value, outcome

    async def get_or_make_all(
        self, keys: Sequence[str], make: Callable[[Sequence[int]], Awaitable[Sequence[Array]]]
    ) -> tuple[list[Array], Outcome]:
        """The values of the keys, in their order, and "miss" where some were made, else "coalesced" where some were awaited.

        `make` is called with the indices of the keys that are neither held nor being made, and gives their values in that
        order. It runs in its own task: a caller that is cancelled leaves alone, and when the last one who waits for any of
        its keys has left, it is cancelled. What it raises goes to all who waited, except that a deadline is its owner's own:
        the others start again.
        """
        found: dict[str, Array] = {}
        outcome: Outcome = "hit"
        while missing := self._missing(keys, found):
            flights = list(dict.fromkeys(self._flights[key] for key in missing if key in self._flights))
            own = {key: index for key, index in missing.items() if key not in self._flights}
            if own:
                outcome = "miss"
                flights.insert(0, self._start(own, make))
            elif outcome == "hit":
                outcome = "coalesced"
            for flight in await self._wait_all(flights, bool(own)):
                found.update(flight)
        return [found[key] for key in keys], outcome

    def _missing(self, keys: Sequence[str], found: dict[str, Array]) -> dict[str, int]:
        """Key -> its first index, of those that are neither found nor held. What is held is added to `found`."""
        missing: dict[str, int] = {}
        for index, key in enumerate(keys):
            if key in found or key in missing:
                continue
            value = self.get(key)
            if value is None:
                missing[key] = index
            else:
                found[key] = value
        return missing

    def _start(self, own: dict[str, int], make: Callable[[Sequence[int]], Awaitable[Sequence[Array]]]) -> _Flight:
        flight = _Flight(asyncio.create_task(self._make(own, make)), tuple(own))
        self._flights.update(dict.fromkeys(own, flight))
        return flight

    async def _wait_all(self, flights: list[_Flight], own: bool) -> list[dict[str, Array]]:
        """What the flights bring; an own one is the first. One that others own and whose deadline passed brings nothing."""
        for flight in flights:
            flight.waiters += 1
        try:
            brought = []
            for number, flight in enumerate(flights):
                try:
                    brought.append(await asyncio.shield(flight.task))
                except Fault as fault:
                    if fault.kind is not Kind.DEADLINE or (own and number == 0):
                        raise
            return brought
        finally:
            for flight in flights:
                flight.waiters -= 1
                if not flight.waiters:
                    self._land(flight)
                    flight.task.cancel()

    async def _make(self, own: dict[str, int], make: Callable[[Sequence[int]], Awaitable[Sequence[Array]]]) -> dict[str, Array]:
        flight = self._flights[next(iter(own))]
        try:
            values = await make(tuple(own.values()))
            made = {key: _frozen(value) for key, value in zip(own, values, strict=True)}
            for key, value in made.items():
                self._keep(key, value)
            return made
        finally:
            self._land(flight)

    def _land(self, flight: _Flight) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _keep(self, key: str, value: Array) -> None:
        self._drop(key)
        size = value.nbytes + ENTRY_BYTES
        if size > self.budget_bytes:
            return
        self._expire()
        while self._stats.bytes + size > self.budget_bytes:
            self._drop(next(iter(self._held)))
            self._stats.evictions += 1
        self._held[key] = _Held(value, self._clock())
        self._stats.bytes += size
        self._stats.entries += 1

    def _drop(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._stats.bytes -= held.value.nbytes + ENTRY_BYTES
            self._stats.entries -= 1

    def _expire(self) -> None:
        limit_s = self._clock() - self.ttl_s
        while self._held:
            key, oldest = next(iter(self._held.items()))
            if oldest.used_at_s > limit_s:
                return
            self._drop(key)
            self._stats.evictions += 1


def _frozen(value: Array) -> Array:
    """A read-only copy with memory of its own: a row must not keep the batch alive that it came from."""
    own = np.array(value)
    own.setflags(write=False)
    return own
