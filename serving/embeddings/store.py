"""The Features of a node as one replica sees them: found by key or by handle, and encoded once for all who wait.

What is held lies in the node's arena. Single-flight is in two steps: among the requests of this replica by a task that all
await, among replicas by the arena's claim on the key. Everything here runs on one event loop and needs no lock of its own.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from serving.domain.image import Frame
from serving.embeddings.arena import Arena
from serving.errors import Fault, Kind
from serving.shm import Slot

Outcome = Literal["hit", "miss", "coalesced"]
Encode = Callable[[Slot], Awaitable[None]]
"""Fills a slot with the encoder's output."""

POLL_S = 0.005
"""How often a slot that another replica fills is looked at."""
RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class Subject:
    """Whose Features, and of what: the key that decides what is the same, and what an answer needs to know of the image.

    `content_px`: (width, height) of the part of the model's square that shows the image; the rest is padding. A handle is good
    for its tenant and model only.
    """

    key: str
    handle: str
    tenant: str
    model_digest: str
    frame: Frame
    content_px: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Features:
    """Dense encoder output of one image in its slot, pinned while this object lives; reusable across prompts."""

    slot: Slot
    handle: str
    frame: Frame
    content_px: tuple[int, int]


@dataclass(eq=False)
class _Flight:
    """One wait for a key that all of this replica's requests for it share; None where another replica gave its encode up."""

    task: asyncio.Task[Features | None]
    waiters: int = 0


class FeaturesStore:
    """Features by key and by handle."""

    def __init__(self, arena: Arena, ttl_s: float) -> None:
        self.arena = arena
        self.ttl_s = ttl_s
        self._flights: dict[str, _Flight] = {}

    def get(self, key: str) -> Features | None:
        """The Features of a key, used now, or None."""
        found = self.arena.get(key)
        return None if found is None else _features(*found)[0]

    def find(self, handle: str, tenant: str, model_digest: str) -> Features:
        """The Features behind a handle, used now. Raises Fault(UNKNOWN_HANDLE) where this tenant and model have none."""
        found = self.arena.find(handle)
        if found is not None:
            features, owner = _features(*found)
            if owner == _owner(tenant, model_digest):
                return features
        raise Fault(Kind.UNKNOWN_HANDLE, "the handle is not known here, or no longer: send the image again", param="image_id")

    def forget(self, handle: str, tenant: str, model_digest: str) -> Features:
        """Drop the Features behind a handle and give them a last time. Raises Fault(UNKNOWN_HANDLE) as `find` does."""
        features = self.find(handle, tenant, model_digest)
        self.arena.drop(features.slot)
        return features

    async def join(self, key: str) -> Features | None:
        """The Features of a key that this replica encodes or waits for at this moment, once they are there; else None.

        None also where that encode's owner ran out of time, or was another replica that gave it up. Raises what the encode
        raised otherwise.
        """
        if key not in self._flights:
            return None
        try:
            return await self._wait(key)
        except Fault as fault:
            if fault.kind is not Kind.DEADLINE:
                raise
            return None

    async def get_or_encode(self, subject: Subject, encode: Encode) -> tuple[Features, Outcome]:
        """The Features of a key: held, or encoded once for all who wait for them.

        The encode runs in its own task. A waiter that is cancelled leaves alone; when the last one has left, the encode is
        cancelled. What the encode raises goes to all who waited, except that a deadline is its owner's own: the others start
        again. Raises Fault(POOL_FULL) where every slot is in use.
        """
        waited = False
        while True:
            features = self.get(subject.key)
            if features is not None:
                return features, "coalesced" if waited else "hit"
            if subject.key not in self._flights:
                slot = self.arena.claim(subject.key)
                if slot == "full":
                    raise Fault(
                        Kind.POOL_FULL, "there is no room for another image now: try again", retry_after_s=RETRY_AFTER_S
                    )
                if slot != "elsewhere":
                    self._flights[subject.key] = _Flight(asyncio.create_task(self._fill(slot, subject, encode)))
                    del slot
                    made = await self._wait(subject.key)
                    assert made is not None
                    return made, "miss"
                self._flights[subject.key] = _Flight(asyncio.create_task(self._watch(subject.key)))
            waited = True
            try:
                features = await self._wait(subject.key)
            except Fault as fault:
                if fault.kind is not Kind.DEADLINE:
                    raise
                continue
            if features is not None:
                return features, "coalesced"

    async def _wait(self, key: str) -> Features | None:
        flight = self._flights[key]
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                self._land(key, flight.task)
                flight.task.cancel()
            del flight  # what the encode raised keeps this frame: a way back from it to the task would keep the slot with it

    async def _watch(self, key: str) -> Features | None:
        """Look at what another replica encodes, once for all who wait here, until it is there or given up."""
        try:
            while True:
                await asyncio.sleep(POLL_S)
                if not self.arena.filling(key):
                    return self.get(key)
        finally:
            self._land(key, asyncio.current_task())

    async def _fill(self, slot: Slot, subject: Subject, encode: Encode) -> Features:
        try:
            await encode(slot)
            self.arena.commit(slot, subject.handle, _meta(subject))
            return Features(slot, subject.handle, subject.frame, subject.content_px)
        except BaseException:
            self.arena.drop(slot)  # the next who asks need not wait until whoever is still at work in it lets go
            raise
        finally:
            self._land(subject.key, asyncio.current_task())

    def _land(self, key: str, task: asyncio.Task[Any] | None) -> None:
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]


@functools.lru_cache(256)
def _owner(tenant: str, model_digest: str) -> str:
    return hashlib.sha256(json.dumps([tenant, model_digest]).encode()).hexdigest()


def _meta(subject: Subject) -> bytes:
    """No name of a tenant and nothing of a patient goes to shared memory."""
    owner = _owner(subject.tenant, subject.model_digest)
    said = {"owner": owner, "handle": subject.handle, "frame": asdict(subject.frame), "content_px": subject.content_px}
    return json.dumps(said, separators=(",", ":")).encode()


def _features(slot: Slot, meta: bytes) -> tuple[Features, str]:
    handle, frame, content_px, owner = _said(meta)
    return Features(slot, handle, frame, content_px), owner


@functools.lru_cache(1024)
def _said(meta: bytes) -> tuple[str, Frame, tuple[int, int], str]:
    """Handle, frame, content and owner. The same image is asked for again and again: read what was said of it once."""
    said = json.loads(meta)
    frame: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said["frame"].items()}
    width, height = said["content_px"]
    return said["handle"], Frame(**frame), (width, height), said["owner"]
