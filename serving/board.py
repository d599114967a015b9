"""What processes of one node before the same engines tell each other: the work that waits, and when an engine was last done.

One small file of /dev/shm beside the arena, made by whoever comes first. Each writes a row of its own and reads the others'
without a lock: a value that is a moment old moves an estimate a little, no more. Seconds are of the clock that all processes
of a machine share (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from serving import shm

ROWS, CLOCKS, LANES, PRIORITIES = 32, 256, 3, 2
ROW = np.dtype(
    [
        ("pid", "<i8"),
        ("ticks", "<i8"),
        ("pool", "S32"),
        ("at_s", "<f8"),
        ("seconds", "<f8", (LANES, PRIORITIES)),
        ("counts", "<f8", (LANES, PRIORITIES)),
        ("speeds", "<f8", (LANES,)),
        ("demand", "<f8", (LANES,)),
    ]
)
FIELDS = ("seconds", "counts", "speeds", "demand")
CLOCK = np.dtype([("engine", "S64"), ("done_s", "<f8")])
NBYTES = ROWS * ROW.itemsize + CLOCKS * CLOCK.itemsize
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


class Neighbours(Protocol):
    """The others at the door of the same pool; implemented by `Row`."""

    def others(self, now_s: float) -> list[Told]:
        """What each of them told last."""
        ...

    def tell(self, told: Told) -> None:
        """The same of oneself."""
        ...


class Alone:
    """Implements `Neighbours` where there are none."""

    def others(self, now_s: float) -> list[Told]:
        """Nobody."""
        return []

    def tell(self, told: Told) -> None:
        """Nobody listens."""


class Clock:
    """When one engine was last done with a call, whoever made it."""

    def __init__(self) -> None:
        self.done_s = 0.0


class Board:
    """One process's opening of the board of a node. `region`: the name of the node's arena; the board goes when that goes."""

    def __init__(self, region: str) -> None:
        self._descriptor = os.open(shm.ROOT / f"{region}_board", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(self._descriptor, 0, NBYTES)
        memory = mmap.mmap(self._descriptor, NBYTES)
        self._rows: Any = np.frombuffer(memory, ROW, ROWS)
        self._clocks: Any = np.frombuffer(memory, CLOCK, CLOCKS, ROWS * ROW.itemsize)

    def row(self, pool: str) -> Neighbours:
        """This process's row at the door of a pool: a free one, or one whose owner is gone. Without one it stands alone."""
        pid, ticks = os.getpid(), shm.start_ticks(os.getpid())
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            for index, row in enumerate(self._rows):
                if not row["pid"] or shm.start_ticks(int(row["pid"])) != row["ticks"]:
                    self._rows[index] = np.zeros((), ROW)
                    row["pool"], row["ticks"], row["pid"] = pool.encode(), ticks, pid
                    return Row(self._rows, index)
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return Alone()

    def clock(self, engine: str) -> Clock:
        """The clock of one engine; one of this process's own where the board is full."""
        name = engine.encode()[:64]
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            for index in range(CLOCKS):
                if self._clocks[index]["engine"] in (name, b""):
                    self._clocks[index]["engine"] = name
                    return _SharedClock(self._clocks, index)
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return Clock()


class Row:
    """Implements `Neighbours`. `rows`: the table; `index`: which of them is this process's."""

    def __init__(self, rows: Any, index: int) -> None:
        self._rows, self._index = rows, index
        self._pool = bytes(rows[index]["pool"])

    def others(self, now_s: float) -> list[Told]:
        """The rows of the same pool that were written lately."""
        told = self._rows["at_s"]
        lately = [int(index) for index in np.flatnonzero(told > now_s - OLD_S) if index != self._index]
        rows = [self._rows[index] for index in lately]
        return [
            Told(float(row["at_s"]), *(row[name].tolist() for name in FIELDS))
            for row in rows
            if bytes(row["pool"]) == self._pool
        ]

    def tell(self, told: Told) -> None:
        """Write the row."""
        row = self._rows[self._index]
        for name in FIELDS:
            row[name] = getattr(told, name)
        row["at_s"] = told.at_s


class _SharedClock(Clock):
    def __init__(self, clocks: Any, index: int) -> None:
        self._cell = clocks["done_s"][index : index + 1]

    @property
    def done_s(self) -> float:
        """Seconds of the shared clock."""
        return float(self._cell[0])

    @done_s.setter
    def done_s(self, value: float) -> None:
        self._cell[0] = value
