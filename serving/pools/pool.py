"""A pool replica as a plain object: the models of one class of the taxonomy, and the threads that work for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from serving.domain.answer import Answer
from serving.domain.image import ImageHandle
from serving.domain.request import Request, images_of
from serving.errors import Fault, Kind
from serving.families.family import Family
from serving.pools import warmup
from serving.telemetry import tracing
from serving.telemetry.metrics import Metrics
from serving.telemetry.stages import Stages

log = logging.getLogger(__name__)


class Pool:
    """Answers requests with its families. `backend_ready` asks the node's Triton whether every engine is ready.

    `publish` is called after each request to publish the Features store's state as metrics.
    """

    def __init__(
        self,
        name: str,
        families: Mapping[str, Family],
        backend_ready: Callable[[], Awaitable[bool]],
        metrics: Metrics,
        publish: Callable[[], None],
    ) -> None:
        self.name = name
        self._families = families
        self._backend_ready = backend_ready
        self._metrics = metrics
        self._publish = publish
        metrics.prepare_pool(name, families)

    async def answer(self, request: Request) -> Answer | Fault:
        """The answer, or the Fault as a value: an exception would cross Ray wrapped in its own."""
        with tracing.span("pool", request.trace, pool=self.name, model=request.model or "") as span:
            outcome = await self._answer(request)
            if isinstance(outcome, Fault):
                span.note(code=outcome.kind.row.code)
            else:
                stages = {f"{stage}_ms": round(seconds * 1000, 3) for stage, seconds in outcome.stages.items()}
                span.note(features=outcome.features, **stages)
            return outcome

    async def _answer(self, request: Request) -> Answer | Fault:
        sent = time.monotonic()
        try:
            request.deadline.check("the model")
            family = self._families[request.model or ""]
            answer = await family.answer(request, Stages())
        except Fault as fault:
            if fault.kind is Kind.DEADLINE:
                self._metrics.observe_deadline("pool")
            if fault.kind is Kind.UNKNOWN_HANDLE:
                self._metrics.affinity.labels(self.name, "miss").inc()
            return fault
        except Exception:
            log.exception("request %s failed in pool %s after %.3f s", request.request_id, self.name, time.monotonic() - sent)
            return Fault(Kind.INTERNAL, "the model failed on this request; the server's log has the details")
        finally:
            self._publish()
        self._metrics.observe_stages(self.name, answer.model.name, answer.stages)
        if any(isinstance(image, ImageHandle) for image in images_of(request.task)):
            self._metrics.affinity.labels(self.name, "hit").inc()
        if answer.features:
            self._metrics.features_cache.labels(self.name, answer.features).inc()
        return answer

    async def readiness(self) -> str:
        """ "ready", or why not."""
        return "ready" if await self._backend_ready() else "Triton is not ready"

    async def warm_up(self, timeout_s: float) -> None:
        """Run every model once, so that the first user does not pay. Raises Fault where one cannot answer in time."""
        await warmup.run(self._families, timeout_s)
