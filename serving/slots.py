"""The layout of the Features arena in shared memory, and the locks by which processes share it.

Standard library and numpy only: Triton's Python-based backends work with a copy of this file.

One file of /dev/shm: a header, a table with one record a slot, then the slots. Byte 0 of the file stands for the table, byte
1 + i for slot i, as ranges of open-file-description locks (fcntl(2), F_OFD_SETLK): whoever reads or fills a slot holds its byte
shared, and only who gets it exclusively may give the slot to another image. The kernel drops the locks of a process that dies,
so a crash leaves no count behind. A slot's generation grows each time it is given away: a stale name is noticed, never read.
"""

import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path("/dev/shm")
MAGIC = b"MEDSLOT1"
HEADER = struct.Struct("<8sQQQ")
"""MAGIC, number of slots, bytes of a slot, offset of the first slot."""
PAGE = 4096
ALIGN = 64
FREE, RESERVED, READY, FORGOTTEN = 0, 1, 2, 3
"""FORGOTTEN: found by nobody, and whole until the slot is given away."""
RECORD = np.dtype(
    [
        ("generation", "<u8"),
        ("used_ns", "<u8"),
        ("state", "u1"),
        ("key", "S64"),
        ("handle", "S72"),
        ("meta_bytes", "<u4"),
        ("meta", "u1", 859),
    ]
)
"""One slot: see `Slots`. `used_ns`: of the clock that all processes of the machine share (CLOCK_MONOTONIC)."""
FLOCK = struct.Struct("hhqqi4x")
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38


class Stale(Exception):
    """The slot holds another image's Features by now."""


def file_bytes(slots: int, slot_bytes: int) -> tuple[int, int]:
    """(offset of the first slot, size of the whole file)."""
    start = -(-(HEADER.size + slots * RECORD.itemsize) // PAGE) * PAGE
    return start, start + slots * slot_bytes


def offsets(sizes: list[int]) -> list[int]:
    """Where tensors of these sizes (bytes) begin in a slot: one after another, each on a cache line."""
    found, at = [], 0
    for size in sizes:
        found.append(at)
        at += -(-size // ALIGN) * ALIGN
    return [*found, at]


class Slots:
    """One process's opening of the arena's file. `table`: one RECORD a slot; `count` slots of `slot_bytes` bytes.

    Pins are counted here for the threads of this process and held as one shared lock a slot for the other processes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._descriptor = os.open(ROOT / name, os.O_RDWR | os.O_CLOEXEC)
        self.nbytes = os.fstat(self._descriptor).st_size
        self._memory = mmap.mmap(self._descriptor, self.nbytes)
        magic, self.count, self.slot_bytes, self.start = HEADER.unpack_from(self._memory)
        if magic != MAGIC:
            raise ValueError(f"{name} is no arena")
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self.table = np.frombuffer(self._memory, RECORD, self.count, HEADER.size)
        self._pins = [0] * self.count
        self._guard = threading.RLock()

    @contextmanager
    def locked(self) -> Iterator[Any]:
        """The table, for this thread of this process alone."""
        with self._guard:
            self._lock(F_OFD_SETLKW, fcntl.F_WRLCK, 0)
            try:
                yield self.table
            finally:
                self._lock(F_OFD_SETLK, fcntl.F_UNLCK, 0)

    def pin(self, index: int, generation: int, state: int) -> None:
        """Keep a slot as it is until `unpin`. Raises Stale where it is not this generation in this state.

        What is FORGOTTEN passes for READY: who was given it before works on.
        """
        with self._guard:
            if not self._pins[index] and not self._lock(F_OFD_SETLK, fcntl.F_RDLCK, 1 + index):
                raise Stale(f"slot {index} is being given away")
            self._pins[index] += 1
            found = int(self.table[index]["state"])  # read once: it may become FORGOTTEN now
            if self.table[index]["generation"] != generation or (READY if found == FORGOTTEN else found) != state:
                self.unpin(index)
                raise Stale(f"slot {index} holds other Features by now")

    def unpin(self, index: int) -> None:
        """Undo one `pin`."""
        with self._guard:
            self._pins[index] -= 1
            if not self._pins[index] and self._descriptor >= 0:
                self._lock(F_OFD_SETLK, fcntl.F_UNLCK, 1 + index)

    def take(self, index: int) -> bool:
        """Whether nobody pins the slot: then it is this process's pin now, exclusive until `take` returns."""
        with self._guard:
            if self._pins[index] or not self._lock(F_OFD_SETLK, fcntl.F_WRLCK, 1 + index):
                return False
            self.table[index]["generation"] += 1
            self._lock(F_OFD_SETLK, fcntl.F_RDLCK, 1 + index)
            self._pins[index] = 1
            return True

    def pinned(self, index: int) -> bool:
        """Whether any process pins the slot now. Only asks: a lock tried here would turn away who pins at that moment."""
        with self._guard:
            if self._pins[index]:
                return True
            asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 1 + index, 1, 0)
            found = FLOCK.unpack(fcntl.fcntl(self._descriptor, F_OFD_GETLK, asked))
            return bool(found[0] != fcntl.F_UNLCK)

    @contextmanager
    def holding(self, index: int, generation: int, state: int) -> Iterator[Any]:
        """The slot's bytes (slot_bytes,) uint8, pinned for the block. Raises Stale."""
        if not 0 <= index < self.count:
            raise Stale(f"there is no slot {index}")
        self.pin(index, generation, state)
        try:
            yield self.view(index)
        finally:
            self.unpin(index)

    def view(self, index: int) -> Any:
        """The slot's bytes (slot_bytes,) uint8, of the mapped file itself."""
        at = self.start + index * self.slot_bytes
        return self._bytes[at : at + self.slot_bytes]

    def close(self) -> None:
        """Give up this opening, its locks with it; arrays on it stay readable until they are gone.

        The locks go by name: the mapping holds a copy of the descriptor (mmap(3) dups it), and so would hold them.
        """
        with self._guard:
            fcntl.fcntl(self._descriptor, F_OFD_SETLK, FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self, command: int, kind: int, byte: int) -> bool:
        try:
            fcntl.fcntl(self._descriptor, command, FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True


def now_ns() -> int:
    """The machine's monotonic clock, nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
