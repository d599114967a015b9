"""What processes of one node before the same engines tell each other: the work that waits, and when an engine was last done.

One small file of /dev/shm beside the arena, made by whoever comes first. Each writes a row of its own and reads the others'
without a lock (numbers are copied whole): a value that is a moment old moves an estimate a little, no more. Seconds are of
the clock that all processes of a machine share (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

from serving import shm
from serving.errors import SetupError

ROWS, CLOCKS, LANES, PRIORITIES = 32, 256, 3, 2
OWNER = struct.Struct("@qq32s")
"""Of a row: pid, start in clock ticks, pool."""
TOLD = struct.Struct(f"@d{LANES * PRIORITIES}d{LANES * PRIORITIES}d{LANES}d{LANES}d")
"""The rest of it: the fields of `Told`."""
ROW_BYTES = OWNER.size + TOLD.size
CLOCK = struct.Struct("@64sd")
"""An engine's name, and when it was done."""
DOUBLE = struct.Struct("@d")
NBYTES = ROWS * ROW_BYTES + CLOCKS * CLOCK.size
OLD_S = 60.0
"""What was told so long ago means nothing."""

Table = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Told:
    """What one other process told `at_s`.

    `seconds`, `counts`: lane -> (interactive, bulk): service that is still to be done, and of how many requests; `speeds`: lane
    -> the part of its engines' time that it gets, 0 to 1; `demand`: lane -> engines' worth of interactive work asked for.
    """

    at_s: float
    seconds: Table
    counts: Table
    speeds: Sequence[float]
    demand: Sequence[float]


class Clock:
    """When one engine was last done with a call, whoever made it."""

    def __init__(self) -> None:
        self.done_s = 0.0


class Board:
    """One process's opening of the board of a node. `region`: the name of the node's arena; the board goes when that goes.

    Raises SetupError where /dev/shm has no room for it.
    """

    def __init__(self, region: str) -> None:
        try:
            self._descriptor = os.open(shm.ROOT / f"{region}_board", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(self._descriptor, 0, NBYTES)
        except OSError as exc:
            raise SetupError(f"no board for this node's routers in /dev/shm: {exc.strerror}") from exc
        self._memory = mmap.mmap(self._descriptor, NBYTES)

    def row(self, pool: str) -> Row | None:
        """This process's row at the door of a pool: a free one, or one whose owner is gone; None where the board is full."""
        pid, name = os.getpid(), pool.encode()[:32]
        with self._locked():
            for at in range(0, ROWS * ROW_BYTES, ROW_BYTES):
                owner, ticks, _ = OWNER.unpack_from(self._memory, at)
                if not owner or shm.start_ticks(owner) != ticks:
                    self._memory[at + OWNER.size : at + ROW_BYTES] = bytes(TOLD.size)
                    OWNER.pack_into(self._memory, at, pid, shm.start_ticks(pid), name)
                    return Row(self._memory, at)
        return None

    def clock(self, engine: str) -> Clock:
        """The clock of one engine; one of this process's own where the board is full."""
        name = engine.encode()[:64].ljust(64, b"\0")
        with self._locked():
            for at in range(ROWS * ROW_BYTES, NBYTES, CLOCK.size):
                found, done_s = CLOCK.unpack_from(self._memory, at)
                if found in (name, bytes(64)):
                    CLOCK.pack_into(self._memory, at, name, done_s)
                    return _SharedClock(self._memory, at + 64)
        return Clock()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)


class Row:
    """One process at the door of a pool, and its neighbours there.

    `memory`: the board; `at`: where in it this process's row begins.
    """

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory, self._at = memory, at
        self._pool = OWNER.unpack_from(memory, at)[2]

    def others(self, now_s: float) -> list[Told]:
        """The rows of the same pool that were written lately."""
        found = []
        for at in range(0, ROWS * ROW_BYTES, ROW_BYTES):
            owner, _, pool = OWNER.unpack_from(self._memory, at)
            if not owner:
                break  # rows are taken in order, and not given back
            if pool != self._pool or at == self._at:
                continue
            told = TOLD.unpack_from(self._memory, at + OWNER.size)
            if told[0] > now_s - OLD_S:
                found.append(Told(told[0], _pairs(told[1:7]), _pairs(told[7:13]), told[13:16], told[16:19]))
        return found

    def tell(self, told: Told) -> None:
        """Write the row."""
        seconds, counts = (chain.from_iterable(table) for table in (told.seconds, told.counts))
        TOLD.pack_into(self._memory, self._at + OWNER.size, told.at_s, *seconds, *counts, *told.speeds, *told.demand)


def _pairs(values: tuple[float, ...]) -> Table:
    return tuple(zip(values[::2], values[1::2], strict=True))


class _SharedClock(Clock):
    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory, self._at = memory, at

    @property
    def done_s(self) -> float:
        """Seconds of the shared clock."""
        return float(DOUBLE.unpack_from(self._memory, self._at)[0])

    @done_s.setter
    def done_s(self, value: float) -> None:
        DOUBLE.pack_into(self._memory, self._at, value)
