"""An engine made of a function, for unit tests and for newcomers. It never stands in for the real one in a claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from serving.domain.request import Deadline, Priority
from serving.engines.engine import EngineSpec, Tensors


@dataclass
class FakeEngine:
    """Answers with `function(inputs)` and counts its calls."""

    spec: EngineSpec
    function: Callable[[Tensors], Mapping[str, npt.NDArray[Any]]]
    calls: int = 0

    async def infer(
        self,
        inputs: Tensors,
        deadline: Deadline,
        *,
        outputs: tuple[str, ...] = (),
        priority: Priority = Priority.INTERACTIVE,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the function once. Raises Fault(DEADLINE) when the deadline has passed."""
        deadline.check("the engine")
        self.calls += 1
        given = self.function(inputs)
        return {name: given[name] for name in (outputs or given)}
