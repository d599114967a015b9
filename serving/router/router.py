"""The brain: dispatch, admission, affinity, and the way to the pool. No wire, no Ray, no model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from serving.domain.answer import Answer
from serving.domain.image import EncodedImage, ImageSource
from serving.domain.request import Request, images_of
from serving.domain.volume import VolumeAnswer, VolumeEvent
from serving.errors import Fault, Kind
from serving.router import affinity, dispatch, versions
from serving.router.admission import Permit, Refusal, TooShort
from serving.router.brain import Readiness, ServedModel
from serving.router.gate import Gate
from serving.telemetry import tracing
from serving.telemetry.later import after_answer

READINESS_TIMEOUT_S = 2.0


class PoolClient(Protocol):
    """How the router reaches a pool."""

    async def answer(self, request: Request, affinity: str, permit: Permit) -> Answer:
        """Send to the replica that the affinity key chooses. Raises Fault."""
        ...

    def answer_volume(self, request: Request, affinity: str, permit: Permit) -> AsyncGenerator[VolumeEvent, None]:
        """The same for a volume, event by event; closing it cancels the work. Raises Fault."""
        ...

    async def readiness(self) -> str:
        """ "ready", or one line that says why not. Raises Fault where no replica answers."""
        ...


class RouterObserver(Protocol):
    """Where the router notes waits and what it refused; implemented by `telemetry.metrics.Metrics`."""

    def observe_wait(self, pool: str, priority: str, seconds: float) -> None:
        """The wait that one request was expected to have, whether it entered or not."""
        ...

    def observe_shed(self, pool: str, reason: str) -> None:
        """One request refused at the door."""
        ...

    def observe_deadline(self, stage: str) -> None:
        """One deadline that had passed when `stage` looked, or was too short for the work."""
        ...


class Router:
    """Implements `Brain`.

    `pools`: pool name -> client; `gates`: pool name -> gate; `served`: the models, the preferred of a pool first; `weights`:
    how images are shared out among the versions of a model.
    """

    def __init__(
        self,
        pools: Mapping[str, PoolClient],
        gates: Mapping[str, Gate],
        served: Sequence[ServedModel],
        observer: RouterObserver | None = None,
        weights: versions.Weights | None = None,
    ) -> None:
        self._observer = observer
        self._pools = pools
        self._gates = gates
        self._served = tuple(served)
        self.weigh(weights or {})

    def weigh(self, weights: versions.Weights) -> None:
        """Share the images of a model out among its versions from now on. Raises SetupError."""
        versions.check(weights, (model.manifest.model for model in self._served))
        self._weights = weights

    async def answer(self, request: Request) -> Answer:
        """Choose the model and its version, take a place in its pool, send. Raises Fault."""
        images = images_of(request.task)
        with tracing.span("router", images=len(images), image_bytes=sum(map(_size_bytes, images))):
            return await self._answer(request)

    async def _answer(self, request: Request) -> Answer:
        key = affinity.key(request.task)
        chosen = dispatch.choose(request.task, request.model, self._served)
        chosen = versions.pick(chosen, request.model, request.task, key, self._served, self._weights)
        pool = chosen.manifest.pool
        self._check_deadline(request)
        gate = self._gates[pool]
        addressed = request.with_model(chosen.manifest.model)
        permit = self._enter(gate, addressed, key)
        spent = None
        try:
            answer = await self._pools[pool].answer(addressed, key, permit)
            spent = answer.stages
            return answer
        except Fault as fault:
            if fault.kind is Kind.POOL_FULL and self._observer is not None:
                self._observer.observe_shed(pool, "pool_full")
            raise
        finally:
            after_answer(gate.leave, permit, time.monotonic(), spent)

    async def answer_volume(self, request: Request) -> AsyncGenerator[VolumeEvent, None]:
        """As `answer`, event by event. The place in the pool is held until the last, or until the iterator is closed."""
        chosen = dispatch.choose(request.task, request.model, self._served)
        pool = chosen.manifest.pool
        self._check_deadline(request)
        gate = self._gates[pool]
        addressed = request.with_model(chosen.manifest.model)
        permit = self._enter(gate, addressed, "")
        spent = None
        try:
            async with aclosing(self._pools[pool].answer_volume(addressed, "", permit)) as events:
                async for event in events:
                    if isinstance(event, VolumeAnswer):
                        spent = event.stages
                    yield event
        finally:
            gate.leave(permit, time.monotonic(), spent)

    def _enter(self, gate: Gate, request: Request, image: str) -> Permit:
        verdict, load = gate.enter(request, time.monotonic(), image)
        if self._observer is not None:
            self._observer.observe_wait(gate.pool, request.priority.value, load.ahead_s + load.begun_s)
        if isinstance(verdict, Permit):
            return verdict
        self._note(gate.pool, verdict)
        raise verdict.fault(gate.pool)

    def _note(self, pool: str, refused: Refusal | TooShort) -> None:
        if self._observer is None:
            return
        if isinstance(refused, Refusal):
            self._observer.observe_shed(pool, refused.reason)
        else:
            self._observer.observe_deadline("router")

    def _check_deadline(self, request: Request) -> None:
        try:
            request.deadline.check("the pool")
        except Fault:
            if self._observer is not None:
                self._observer.observe_deadline("router")
            raise

    async def models(self) -> tuple[ServedModel, ...]:
        """What is served."""
        return self._served

    async def readiness(self) -> Readiness:
        """Asks every pool; a pool that does not answer in time is not ready."""
        names = list(self._pools)
        answers = await asyncio.gather(*(self._ask(name) for name in names))
        parts = dict(zip(names, answers, strict=True))
        return Readiness(all(part == "ready" for part in answers), parts)

    async def _ask(self, name: str) -> str:
        try:
            async with asyncio.timeout(READINESS_TIMEOUT_S):
                return await self._pools[name].readiness()
        except TimeoutError:
            return "no answer"
        except Fault as fault:
            return fault.message if fault.kind is Kind.ENGINE_UNAVAILABLE else fault.kind.row.code


def _size_bytes(image: ImageSource) -> int:
    """As sent; 0 of a handle."""
    return len(image.data) if isinstance(image, EncodedImage) else 0
