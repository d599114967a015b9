"""The router's way to a pool in its own process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from serving.domain.answer import Answer
from serving.domain.request import Request
from serving.domain.volume import VolumeEvent
from serving.errors import Fault
from serving.pools.pool import Pool
from serving.router.admission import Permit


class LocalPoolClient:
    """Implements `router.router.PoolClient` without a hop: on one machine affinity has nothing to choose."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def answer(self, request: Request, affinity: str, permit: Permit) -> Answer:
        """The pool's answer. Raises Fault."""
        outcome = await self._pool.answer(request)
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    async def answer_volume(self, request: Request, affinity: str, permit: Permit) -> AsyncGenerator[VolumeEvent, None]:
        """The pool's events. Raises Fault."""
        async with aclosing(self._pool.answer_volume(request)) as events:
            async for event in events:
                if isinstance(event, Fault):
                    raise event
                yield event

    async def readiness(self) -> str:
        """ "ready", or why not."""
        return await self._pool.readiness()
