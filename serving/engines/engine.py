"""The engine protocol: one model version of a backend, asked for tensors by tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from serving.domain.request import Deadline, Priority

Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `dtype`: numpy's name. `shape`: without the batch axis; -1 is any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EngineSpec:
    """What an engine takes and gives. `max_batch` 0: the shapes carry no batch axis that Triton may batch over.

    With `max_batch` above 0 every tensor has a leading batch axis that is not in its shape.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int = 0


class Engine(Protocol):
    """One model version. Implementations: `triton.TritonEngine`; `fake.FakeEngine` for unit tests only."""

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
    ) -> dict[str, npt.NDArray[Any]]:
        """Run once and give the named outputs (all of the spec's where none is named).

        Raises Fault: DEADLINE when the deadline passes first, ENGINE_UNAVAILABLE when the server cannot be reached,
        ENGINE_FAILED when it answers with an error or with tensors that are not what the spec says.
        """
        ...
