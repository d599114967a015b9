"""Features of one job's own pictures: each in a slot while it is used, and, where it is needed again, beside the arena.

A volume has more slices than the arena has slots, and nobody else asks for them: a slot is given back as soon as its slice is
done, so that a job takes a few slots from the users' images and no more.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import Any

import numpy.typing as npt

from serving.domain.request import Deadline
from serving.embeddings.arena import Arena
from serving.embeddings.store import Encode
from serving.shm import Slot

FULL_S = 0.02
"""How often a full arena is tried again."""


class Aside:
    """Features by picture number. `kept_bytes`: what is kept beside the arena at most. One event loop."""

    def __init__(self, arena: Arena, kept_bytes: int) -> None:
        self._arena = arena
        self._left = kept_bytes
        self._job = secrets.token_hex(16)
        self._turn = asyncio.Lock()
        self._kept: dict[int, npt.NDArray[Any]] = {}
        self.encoded = 0
        """Pictures encoded so far, each time counted."""

    async def get(self, number: int, encode: Encode, deadline: Deadline) -> Slot:
        """A slot with the picture's Features, pinned while the object lives: from beside, or encoded.

        Waits for a slot where all are in use. Raises Fault(DEADLINE), and what the encode raises.
        """
        slot = await self._claim(number, deadline)
        try:
            kept = self._kept.get(number)
            if kept is not None:
                self._arena.view(slot)[: kept.size] = kept
            else:
                await encode(slot)
                self.encoded += 1
            self._arena.commit(slot, "", b"")
        except BaseException:
            self._arena.drop(slot)
            raise
        return slot

    def done(self, number: int, slot: Slot, again: bool) -> None:
        """A picture's slot is not needed now; `again`: it will be, so keep its Features if there is room."""
        if again and number not in self._kept:
            view = self._arena.view(slot)
            if view.nbytes <= self._left:
                self._left -= view.nbytes
                self._kept[number] = view.copy()
        elif not again and number in self._kept:
            self._left += self._kept.pop(number).nbytes
        self._arena.drop(slot)

    async def _claim(self, number: int, deadline: Deadline) -> Slot:
        # In the order of asking: a later slice must not get the slot that an earlier one waits for.
        async with self._turn:
            return await self._claim_now(number, deadline)

    async def _claim_now(self, number: int, deadline: Deadline) -> Slot:
        while True:
            # A key of its own each time: the slot of an earlier visit may still be pinned for a moment.
            key = hashlib.sha256(f"{self._job}|{number}|{secrets.token_hex(8)}".encode()).hexdigest()
            slot = self._arena.claim(key)
            if isinstance(slot, Slot):
                return slot
            deadline.check("a slot for the slice's Features")
            await asyncio.sleep(FULL_S)
