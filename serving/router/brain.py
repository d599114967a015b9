"""The one brain behind both fronts: what an edge may ask for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from serving.domain.answer import Answer
from serving.domain.request import Request
from serving.domain.volume import VolumeEvent
from serving.manifest import Manifest


@dataclass(frozen=True)
class Readiness:
    """Whether work can be taken. `parts`: pool or engine -> "ready" or one line that says why not."""

    ready: bool
    parts: Mapping[str, str]


@dataclass(frozen=True)
class ServedModel:
    """One line of `/v1/models`: the record of the built model, the prompts it takes, its limits."""

    manifest: Manifest
    prompts: tuple[str, ...]
    limits: Mapping[str, Any]


class Brain(Protocol):
    """Everything that a front can do. Implemented by `router.router.Router`; both fronts call nothing else."""

    async def answer(self, request: Request) -> Answer:
        """Dispatch to the pool and wait for the answer. Raises Fault."""
        ...

    def answer_volume(self, request: Request) -> AsyncGenerator[VolumeEvent, None]:
        """Dispatch a SegmentVolume: VolumeAccepted, VolumeProgress a slice, VolumeAnswer. Ends its work when it is closed.

        Raises Fault; before the first event where the volume, its prompts or the load do not allow the work.
        """
        ...

    async def models(self) -> tuple[ServedModel, ...]:
        """What is served."""
        ...

    async def readiness(self) -> Readiness:
        """Ready only after warm-up, and not while Triton or a pool is away."""
        ...
