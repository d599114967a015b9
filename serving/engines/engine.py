"""The engine protocol: one model version of a backend, asked for tensors by tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from serving.domain.request import Deadline, Priority
from serving.shm import Slot

Tensors = Mapping[str, npt.NDArray[Any]]
Timing = Callable[[float, float], None]
"""Told the seconds of waiting and the seconds of work."""


def ignore(waited_s: float, worked_s: float) -> None:
    """For who does not ask."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `dtype`: numpy's name. `shape`: without the batch axis; -1 is any size.

    `sizes`: (least, usual, most) of each -1 in turn, where the family bounds them: what a GPU's engine is built for.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sizes: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class EngineSpec:
    """What an engine takes and gives. Every tensor has a leading batch axis, at most `max_batch`, that is not in its shape.

    `reads`, `writes`: Features, which lie in a slot of the node's arena and never in a message. `join`: the axis (batch axis
    counted) along which calls on one slot may be put together, or None.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int = 1
    reads: tuple[TensorSpec, ...] = ()
    writes: tuple[TensorSpec, ...] = ()
    join: int | None = None


class Engine(Protocol):
    """One model version: `triton.TritonEngine`, `line.Line` before it; `fake.FakeEngine` for unit tests only."""

    @property
    def spec(self) -> EngineSpec:
        """Names, dtypes and shapes of the tensors."""
        ...

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
        """Run once and give the named outputs (all of the spec's where none is named).

        `slot`: where an engine reads or writes Features. `timing`: is told how long the call waited for its turn and how long
        the engine worked on it. Raises Fault: DEADLINE when the deadline passes first, ENGINE_UNAVAILABLE when the server
        cannot be reached, ENGINE_FAILED when it answers with an error or with tensors that are not what the spec says,
        POOL_FULL when its queue is, UNKNOWN_HANDLE when the slot has been given to another image.
        """
        ...
