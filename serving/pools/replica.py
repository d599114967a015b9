"""The Ray Serve shell of a pool replica, and the router's way to it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from serving.domain.answer import Answer
from serving.domain.request import Request
from serving.domain.volume import VolumeEvent
from serving.errors import Fault, Kind
from serving.pools import priority
from serving.pools.pool import Pool
from serving.router.admission import Permit
from serving.telemetry import tracing

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
WORTH_RESENDING_S = 0.1
"""With less left of the deadline, a call that its replica lost is not sent to another."""


@serve.deployment
class PoolReplica:
    """A shell around `Pool`; `open_pool` builds it in the replica's process."""

    async def __init__(self, open_pool: Callable[[], Pool], wait_s: float, answer_s: float) -> None:  # type: ignore[misc]  # Ray awaits it
        self._pool = open_pool()
        await self._pool.warm_up(wait_s, answer_s)
        priority.ready()

    async def answer(self, request: Request) -> Answer | Fault:
        """The answer or the Fault, as a value."""
        return await self._pool.answer(request)

    async def answer_volume(self, request: Request) -> AsyncGenerator[VolumeEvent | Fault, None]:
        """A volume's events; a Fault as a value is the last."""
        async with aclosing(self._pool.answer_volume(request)) as events:
            async for event in events:
                yield event

    async def readiness(self) -> str:
        """ "ready", or why not."""
        return await self._pool.readiness()


class RayPoolClient:
    """Implements `router.router.PoolClient` over a deployment handle. `resent` is told of each call that a replica lost."""

    def __init__(self, pool: str, handle: DeploymentHandle[Any], resent: Callable[[], None]) -> None:
        self._pool = pool
        self._handle = handle
        self._resent = resent

    async def answer(self, request: Request, affinity: str, permit: Permit) -> Answer:
        """Send to the replica that the affinity key chooses. Raises Fault."""
        handle = self._handle.options(session_id=affinity) if affinity else self._handle
        request = request.with_trace(tracing.handed_on())
        try:
            outcome: Answer | Fault = await self._call(handle.answer.remote(request))
        except Fault as fault:
            if fault.kind is not Kind.ENGINE_UNAVAILABLE or request.deadline.remaining_s() < WORTH_RESENDING_S:
                raise
            self._resent()  # it asks for an answer and changes nothing: another replica may give it
            outcome = await self._call(handle.answer.remote(request))
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    async def answer_volume(self, request: Request, affinity: str, permit: Permit) -> AsyncGenerator[VolumeEvent, None]:
        """The events of the replica that takes it. Raises Fault."""
        given: Any = self._handle.options(stream=True).answer_volume.remote(request)
        try:
            async for event in self._guarded(given):
                if isinstance(event, Fault):
                    raise event
                yield event
        finally:
            given.cancel()

    async def readiness(self) -> str:
        """ "ready", or why not. Raises Fault where no replica answers."""
        return str(await self._call(self._handle.readiness.remote()))

    async def _guarded(self, stream: Any) -> AsyncIterator[VolumeEvent | Fault]:
        try:
            async for event in stream:
                yield event
        except (BackPressureError, RayError, RayServeException) as exc:
            raise self._lost(exc) from exc

    async def _call(self, response: Any) -> Any:
        try:
            return await response
        except (BackPressureError, RayError, RayServeException) as exc:
            raise self._lost(exc) from exc

    def _lost(self, exc: Exception) -> Fault:
        if isinstance(exc, BackPressureError):
            return Fault(Kind.POOL_FULL, f"the {self._pool} pool is full: try again later", retry_after_s=RETRY_AFTER_S)
        log.warning("the %s pool lost a call: %s", self._pool, type(exc).__name__)
        return Fault(
            Kind.ENGINE_UNAVAILABLE,
            f"the {self._pool} pool lost the replica that held this request: send it again",
            retry_after_s=RETRY_AFTER_S,
        )
