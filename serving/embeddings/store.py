"""The Features of one replica: a byte-bounded LRU with a time to live, and one encode at a time for each key.

Everything runs on one event loop and needs no lock. Least recently used is also first to expire, since every use renews
the time to live.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from serving.domain.image import Frame
from serving.errors import Fault, Kind

Outcome = Literal["hit", "miss", "coalesced"]


@dataclass(frozen=True, eq=False)
class Features:
    """Dense encoder output of one image, reusable across prompts.

    `value`: the encoder's output, axes and dtype as the family's engine gives it. `frame`: of the original image.
    `content_px`: (width, height) of the part of the model's square that shows the image; the rest is padding.
    `tenant` and `model_digest`: for whom and by which weights; a handle is good for these only.
    """

    key: str
    handle: str
    tenant: str
    model_digest: str
    value: npt.NDArray[np.float32]
    frame: Frame
    content_px: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes that count against the budget."""
        return self.value.nbytes


@dataclass
class StoreStats:
    """What a store holds now (`bytes`, `entries`) and what happened since it was made. Only the store writes it.

    `evictions`: for want of room. `expirations`: not used for the time to live.
    """

    bytes: int = 0
    entries: int = 0
    hits: int = 0
    misses: int = 0
    coalesced: int = 0
    evictions: int = 0
    expirations: int = 0
    _reported: int = field(default=0, repr=False)

    def take_evictions(self) -> int:
        """How many Features left for want of room or by age since this was last asked."""
        gone = self.evictions + self.expirations
        fresh, self._reported = gone - self._reported, gone
        return fresh


@dataclass(eq=False)
class _Held:
    features: Features
    used_at_s: float


@dataclass(eq=False)
class _Flight:
    task: asyncio.Task[Features]
    waiters: int = 0


class FeaturesStore:
    """Features by key and by handle, at most `budget_bytes` of them, each until `ttl_s` seconds after its last use.

    Features larger than the whole budget are given to those who waited and not kept.
    """

    def __init__(self, budget_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget_bytes = budget_bytes
        self.ttl_s = ttl_s
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._handles: dict[str, str] = {}
        self._flights: dict[str, _Flight] = {}
        self._stats = StoreStats()

    @property
    def stats(self) -> StoreStats:
        """Counts for the metrics, as of now."""
        self._expire()
        return self._stats

    def get(self, key: str) -> Features | None:
        """The Features of a key, used now, or None. Found counts as a hit; absent counts as nothing yet."""
        self._expire()
        held = self._held.get(key)
        if held is None:
            return None
        held.used_at_s = self._clock()
        self._held.move_to_end(key)
        self._stats.hits += 1
        return held.features

    def find(self, handle: str, tenant: str, model_digest: str) -> Features:
        """The Features behind a handle, used now. Raises Fault(UNKNOWN_HANDLE) where this tenant and model have none."""
        features = self.get(self._known(handle, tenant, model_digest))
        if features is None:
            raise _unknown()
        return features

    def forget(self, handle: str, tenant: str, model_digest: str) -> Features:
        """Drop the Features behind a handle and give them a last time. Raises Fault(UNKNOWN_HANDLE) as `find` does."""
        held = self._held.get(self._known(handle, tenant, model_digest))
        if held is None:
            raise _unknown()
        self.drop(held.features.key)
        return held.features

    def drop(self, key: str) -> None:
        """Forget the Features of a key, if there are any."""
        held = self._held.pop(key, None)
        if held is not None:
            self._handles.pop(held.features.handle, None)
            self._stats.bytes -= held.features.nbytes
            self._stats.entries -= 1

    async def get_or_encode(self, key: str, encode: Callable[[], Awaitable[Features]]) -> tuple[Features, Outcome]:
        """The Features of a key: held, or encoded once for all who wait for them.

        The encode runs in its own task. A waiter that is cancelled leaves alone; when the last one has left, the encode
        is cancelled. What the encode raises goes to all who waited, except that a deadline is its owner's own: the
        others start again.
        """
        while True:
            features = self.get(key)
            if features is not None:
                return features, "hit"
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight(asyncio.create_task(self._encode(key, encode)))
                self._stats.misses += 1
                return await self._wait(key, flight), "miss"
            self._stats.coalesced += 1
            try:
                return await self._wait(key, flight), "coalesced"
            except Fault as fault:
                if fault.kind is not Kind.DEADLINE:
                    raise

    async def _wait(self, key: str, flight: _Flight) -> Features:
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                self._land(key, flight)
                flight.task.cancel()

    async def _encode(self, key: str, encode: Callable[[], Awaitable[Features]]) -> Features:
        flight = self._flights[key]
        try:
            features = await encode()
            self._keep(features)
            return features
        finally:
            self._land(key, flight)

    def _land(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _keep(self, features: Features) -> None:
        self.drop(features.key)
        if features.nbytes > self.budget_bytes:
            return
        self._expire()
        while self._stats.bytes + features.nbytes > self.budget_bytes:
            self.drop(next(iter(self._held)))
            self._stats.evictions += 1
        self._held[features.key] = _Held(features, self._clock())
        self._handles[features.handle] = features.key
        self._stats.bytes += features.nbytes
        self._stats.entries += 1

    def _expire(self) -> None:
        limit_s = self._clock() - self.ttl_s
        while self._held:
            oldest = next(iter(self._held.values()))
            if oldest.used_at_s > limit_s:
                return
            self.drop(oldest.features.key)
            self._stats.expirations += 1

    def _known(self, handle: str, tenant: str, model_digest: str) -> str:
        self._expire()
        key = self._handles.get(handle, "")
        held = self._held.get(key)
        if held is None or (held.features.tenant, held.features.model_digest) != (tenant, model_digest):
            raise _unknown()
        return key


def _unknown() -> Fault:
    return Fault(Kind.UNKNOWN_HANDLE, "the handle is not known here, or no longer: send the image again", param="image_id")
