"""An engine made of a function, for unit tests and for newcomers. It never stands in for the real one in a claim."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from serving.domain.request import Deadline, Priority
from serving.engines.engine import EngineSpec, Tensors, Timing, ignore
from serving.shm import Slot


@dataclass
class FakeEngine:
    """Answers with `function(inputs)` and counts its calls. `held`: stands in for the arena, one for a model's engines."""

    spec: EngineSpec
    function: Callable[[Tensors], Mapping[str, npt.NDArray[Any]]]
    calls: int = 0
    held: dict[tuple[int, int], Tensors] = field(default_factory=dict)

    async def infer(
        self,
        inputs: Tensors,
        deadline: Deadline,
        *,
        outputs: tuple[str, ...] = (),
        priority: Priority = Priority.INTERACTIVE,
        slot: Slot | None = None,
        timing: Timing = ignore,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the function once. Raises Fault(DEADLINE) when the deadline has passed."""
        deadline.check("the engine")
        self.calls += 1
        began = time.monotonic()
        if self.spec.reads and slot is not None:
            inputs = {**self.held[slot.index, slot.generation], **inputs}
        given = self.function(inputs)
        timing(0.0, time.monotonic() - began)
        if self.spec.writes and slot is not None:
            self.held[slot.index, slot.generation] = given
            return {}
        return {name: given[name] for name in (outputs or given)}
