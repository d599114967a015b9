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
from serving.telemetry.metrics import Metrics
from serving.telemetry.stages import Stages

log = logging.getLogger(__name__)

SelfCheck = Callable[[float], Awaitable[Mapping[tuple[str, str], bool]]]
"""Seconds that it may take -> (model, engine) -> whether it passed: `selfcheck.run`."""


class Pool:
    """Answers requests with its families. `backend_ready` asks the node's Triton whether every engine is ready.

    `publish` is called after each request to publish the Features store's state as metrics. `self_check`: asked once, after
    the warm-up, for (model, engine) -> whether it answers as it was built; a model with one that does not is not served.
    """

    def __init__(
        self,
        name: str,
        families: Mapping[str, Family],
        backend_ready: Callable[[], Awaitable[bool]],
        metrics: Metrics,
        publish: Callable[[], None],
        self_check: SelfCheck | None = None,
    ) -> None:
        self.name = name
        self._families = families
        self._backend_ready = backend_ready
        self._metrics = metrics
        self._publish = publish
        self._self_check = self_check
        self._unfit: dict[str, str] = {}
        """Model -> the engine of it that failed its self-check."""
        metrics.prepare_pool(name, families)

    async def answer(self, request: Request) -> Answer | Fault:
        """The answer, or the Fault as a value: an exception would cross Ray wrapped in its own."""
        sent = time.monotonic()
        try:
            request.deadline.check("the model")
            self._check_fit(request.model or "")
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
        if self._unfit:
            return f"self-check failed: engine {next(iter(self._unfit.values()))}"
        return "ready" if await self._backend_ready() else "Triton is not ready"

    async def warm_up(self, timeout_s: float) -> None:
        """Run every model once, so that the first user does not pay, and check its engines.

        Raises Fault where one cannot answer in time.
        """
        await warmup.run(self._families, timeout_s)
        if self._self_check is None:
            return
        for (model, engine), ok in (await self._self_check(timeout_s)).items():
            self._metrics.set_selfcheck(model, engine, ok)
            if not ok:
                self._unfit.setdefault(model, engine)

    def _check_fit(self, model: str) -> None:
        if model in self._unfit:
            message = f"model {model} is not served: its engine {self._unfit[model]} failed the self-check"
            raise Fault(Kind.ENGINE_UNAVAILABLE, message)
