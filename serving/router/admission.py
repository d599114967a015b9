"""May it enter? A full pool answers at once, with an honest time to come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving.errors import Fault, Kind

SMOOTHING = 0.1


@dataclass(frozen=True)
class Permit:
    """The right to be inside one pool. Valid within its `Gate.enter` block."""

    pool: str


class Gate:
    """Counts what is inside a pool and how long a request takes there. One gate a pool in each router replica.

    `parallel`: requests that the pool works on at a time; `waiting`: how many more may wait.
    """

    def __init__(self, pool: str, parallel: int, waiting: int) -> None:
        self.pool = pool
        self.parallel = parallel
        self.limit = parallel + waiting
        self.inside = 0
        self.service_s = 0.0

    def retry_after_s(self) -> float:
        """Seconds until there is room again, from the mean time that a request takes, at least 0.1."""
        return max(0.1, self.service_s * (self.inside - self.limit + 1) / self.parallel)

    @contextmanager
    def enter(self) -> Iterator[Permit]:
        """Hold a place for the block. Raises Fault(POOL_FULL) with `retry_after_s` when there is none."""
        if self.inside >= self.limit:
            raise Fault(Kind.POOL_FULL, f"the {self.pool} pool is full: try again later", retry_after_s=self.retry_after_s())
        self.inside += 1
        try:
            yield Permit(self.pool)
        finally:
            self.inside -= 1

    def served(self, seconds: float) -> None:
        """Learn from one answered request."""
        self.service_s = seconds if not self.service_s else (1 - SMOOTHING) * self.service_s + SMOOTHING * seconds
