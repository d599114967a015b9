"""Who lies in which slot: the Features arena of one node, shared by every replica and by Triton.

The table lies in the shared file itself (`serving.slots`), so that a replica that is started anew finds what its predecessor
encoded, and two replicas never encode one image twice. Whoever holds a `Slot` pins it: least recently used goes first, pinned
never.
"""

from __future__ import annotations

import os
import shutil
import weakref
from typing import Any, Literal

import numpy as np

from serving import shm, slots
from serving.errors import SetupError
from serving.shm import Slot
from serving.slots import FORGOTTEN, FREE, READY, RESERVED, Slots

MOST_SEEN = 4
"""So many look-ups a slot are remembered."""

Claimed = Literal["elsewhere", "full"]
"""Why there is no slot: another process fills it or has just filled it, or every slot is pinned."""


class Arena:
    """`region`: the name of its file in /dev/shm. `ttl_s`: Features are forgotten that long after their last use.

    Every method is quick (microseconds) and may be called from the event loop.
    """

    def __init__(self, region: str, ttl_s: float = 3600.0) -> None:
        try:
            self._slots = Slots(region)
        except (OSError, ValueError) as exc:
            raise SetupError(f"the Features arena {region} is not on this node: is its Triton started?") from exc
        self.region = region
        self.nbytes = self._slots.nbytes
        self.slot_bytes = self._slots.slot_bytes
        self._ttl_ns = int(ttl_s * 1e9)
        self._expires_ns = 0
        self._seen: dict[tuple[str, bytes], int] = {}
        """(field, value) -> the slot where it was found last: looked at first, and believed only if it is still so."""
        self.evictions = 0
        self.refusals = 0

    @property
    def count(self) -> int:
        """Slots in all."""
        return int(self._slots.count)

    def used_bytes(self) -> int:
        """Bytes of the slots that hold Features."""
        return int((self._slots.table["state"] == READY).sum()) * int(self.slot_bytes)

    def get(self, key: str) -> tuple[Slot, bytes] | None:
        """The Features of a key and what was said of them at `commit`, used now; or None."""
        return self._find("key", key)

    def find(self, handle: str) -> tuple[Slot, bytes] | None:
        """As `get`, by handle."""
        return self._find("handle", handle)

    def claim(self, key: str) -> Slot | Claimed:
        """A slot to be filled with the Features of a key: a free one, or the least recently used that nobody pins.

        It becomes visible with `commit`. One that was dropped without is free again.
        """
        with self._slots.locked() as table:
            for index in np.flatnonzero(table["key"] == key.encode()):
                if table[index]["state"] == READY or self._slots.pinned(int(index)):
                    return "elsewhere"
            for index in _by_age(table):
                if self._slots.take(index):
                    self.evictions += int(table[index]["state"] == READY)
                    table[index]["state"] = RESERVED
                    table[index]["key"] = key.encode()
                    table[index]["handle"] = b""
                    return self._slot(index)
        self.refusals += 1
        return "full"

    def filling(self, key: str) -> bool:
        """Whether a slot is being filled with the Features of a key now, by whatever process."""
        with self._slots.locked() as table:
            reserved = np.flatnonzero((table["key"] == key.encode()) & (table["state"] == RESERVED))
            return any(self._slots.pinned(int(index)) for index in reserved)

    def commit(self, slot: Slot, handle: str, meta: bytes) -> None:
        """What lies in a claimed slot is whole. `meta`: at most 859 bytes, given back by `get`."""
        if len(meta) > slots.RECORD["meta"].itemsize:
            raise ValueError(f"{len(meta)} bytes say too much of one image's Features")
        with self._slots.locked() as table:
            record = table[slot.index]
            record["meta"][: len(meta)] = np.frombuffer(meta, np.uint8)
            record["meta_bytes"] = len(meta)
            record["handle"] = handle.encode()
            record["used_ns"] = slots.now_ns()
            record["state"] = READY

    def view(self, slot: Slot) -> Any:
        """The bytes (slot_bytes,) uint8 of a slot that the caller pins: Features are read or written there in place."""
        return self._slots.view(slot.index)

    def read(self, slot: Slot) -> Any:
        """A copy (slot_bytes,) uint8 of what lies in a slot that the caller holds."""
        return self._slots.view(slot.index).copy()

    def drop(self, slot: Slot) -> None:
        """Forget what lies in a slot. Who pins it works on; its room is free when they are done."""
        with self._slots.locked() as table:
            if table[slot.index]["generation"] == slot.generation:
                _clear(table, slot.index)

    def _find(self, field: str, value: str) -> tuple[Slot, bytes] | None:
        asked = value.encode()
        with self._slots.locked() as table:
            self._expire(table)
            index = self._place(table, field, asked)
            if index is None:
                return None
            record = table[index]
            record["used_ns"] = slots.now_ns()
            slot = self._pinned(index)
            return slot, record["meta"][: int(record["meta_bytes"])].tobytes()

    def _place(self, table: Any, field: str, asked: bytes) -> int | None:
        """The slot that holds what is asked for."""
        seen = self._seen.get((field, asked))
        if seen is not None and table[seen][field] == asked and table[seen]["state"] == READY:
            return seen
        found = np.flatnonzero((table[field] == asked) & (table["state"] == READY))
        if not found.size:
            return None
        if len(self._seen) >= MOST_SEEN * self.count:
            self._seen.clear()
        self._seen[field, asked] = int(found[0])
        return int(found[0])

    def _expire(self, table: Any) -> None:
        """Forget what was not used for too long. Nothing is looked at before the first of what was held can be so old."""
        now = slots.now_ns()
        if now < self._expires_ns:
            return
        held = np.flatnonzero(table["state"] == READY)
        old = table["used_ns"][held] < now - self._ttl_ns
        for index in held[old]:
            _clear(table, int(index))
            self.evictions += 1
        self._expires_ns = min((int(used) for used in table["used_ns"][held[~old]]), default=now) + self._ttl_ns

    def _pinned(self, index: int) -> Slot:
        self._slots.pin(index, int(self._slots.table[index]["generation"]), READY)
        return self._slot(index)

    def _slot(self, index: int) -> Slot:
        """A pinned slot as an object whose end unpins it."""
        offset = self._slots.start + index * self.slot_bytes
        slot = Slot(self.region, index, int(self._slots.table[index]["generation"]), offset)
        weakref.finalize(slot, self._slots.unpin, index).atexit = False
        return slot

    def close(self) -> None:
        """Give up this process's opening."""
        self._slots.close()


def create(label: str, budget_bytes: int, slot_bytes: int, *, name: str = "") -> str:
    """Make a node's arena and give its region's name. It is this process's: the next start's sweep removes it after a crash.

    `name`: of one that outlives this process instead, as in a pod whose containers share /dev/shm; its predecessor is removed.

    The file is sparse: memory is spent when a slot is first used, and must be there then. Raises SetupError where the budget
    holds no slot, or /dev/shm does not hold the budget.
    """
    count = budget_bytes // slot_bytes
    if not count:
        raise SetupError(f"features.budget_bytes must be at least {slot_bytes}: one image's Features")
    start, size = slots.file_bytes(count, slot_bytes)
    free = shutil.disk_usage(shm.ROOT).free
    if free < size:
        short = f"/dev/shm has {free >> 20} MiB free and Features need {size >> 20}"
        raise SetupError(f"{short}: give more (docker: --shm-size=1g) or lower features.budget_bytes")
    (shm.ROOT / name).unlink(missing_ok=True) if name else None
    name = name or f"{shm.prefix()}{label}"
    descriptor = os.open(shm.ROOT / name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.ftruncate(descriptor, size)
        os.pwrite(descriptor, slots.HEADER.pack(slots.MAGIC, count, slot_bytes, start), 0)
    finally:
        os.close(descriptor)
    return name


def _by_age(table: Any) -> list[int]:
    """The slots' numbers: those that hold nothing, then the least recently used."""
    order = np.lexsort((table["used_ns"], _RANK[table["state"]]))
    return [int(index) for index in order]


def _clear(table: Any, index: int) -> None:
    table[index]["state"] = _CLEARED[table[index]["state"]]
    table[index]["key"] = b""
    table[index]["handle"] = b""


_CLEARED = np.array([FREE, FREE, FORGOTTEN, FORGOTTEN])
_RANK = np.array([0, 0, 1, 0])
"""By state. A reserved slot that nobody pins was given up: as good as a free one."""
