"""Per-stage timings of one request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STAGES = ("decode", "preprocess", "queue", "encode", "decode_mask", "postprocess", "serialise", "generate")
"""The bounded set of stage names; `telemetry.metrics` labels with it."""


class Stages:
    """Adds up the seconds that each stage of one request took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Time a block as `stage` (one of STAGES)."""
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage}")
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def timing(self, stage: str) -> Callable[[float, float], None]:
        """What an engine tells of its time: waiting counts as `queue`, work as `stage`."""

        def note(waited_s: float, worked_s: float) -> None:
            self.add("queue", waited_s)
            self.add(stage, worked_s)

        return note

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
