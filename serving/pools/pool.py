"""A pool replica as a plain object: the models of one class of the taxonomy, and the threads that work for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import cast

from serving.domain.answer import Answer
from serving.domain.image import ImageHandle
from serving.domain.request import Request, images_of
from serving.domain.volume import VolumeAnswer, VolumeEvent, VolumeProgress
from serving.errors import Fault, Kind
from serving.families.family import Family, VolumeFamily
from serving.pools import warmup
from serving.telemetry import tracing
from serving.telemetry.later import after_answer
from serving.telemetry.metrics import Metrics
from serving.telemetry.stages import Stages

log = logging.getLogger(__name__)

SelfCheck = Callable[[float], Awaitable[Mapping[tuple[str, str], bool]]]
"""Seconds that an engine may take -> (model, engine) -> whether it passed: `selfcheck.run`."""


class Pool:
    """Answers requests with its families. `backend_ready` asks the node's Triton whether every engine is ready.

    `publish` is called when a request is answered, to publish the Features store's state as metrics. `self_check`: asked
    once, after the warm-up, for (model, engine) -> whether it answers as it was built; a model with one that does not is not
    served.
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
            after_answer(self._publish)
        after_answer(self._count, request, answer)
        return answer

    def _count(self, request: Request, answer: Answer) -> None:
        self._metrics.observe_stages(self.name, answer.model.name, answer.stages)
        if any(isinstance(image, ImageHandle) for image in images_of(request.task)):
            self._metrics.affinity.labels(self.name, "hit").inc()
        if answer.features:
            self._metrics.features_cache.labels(self.name, answer.features).inc()

    async def answer_volume(self, request: Request) -> AsyncGenerator[VolumeEvent | Fault, None]:
        """A volume's events as the work goes on; a Fault as a value is the last. Closing it cancels the work."""
        family = cast(VolumeFamily, self._families[request.model or ""])
        events: asyncio.Queue[VolumeEvent] = asyncio.Queue(1)
        work = asyncio.create_task(self._volume(family, request, events))
        try:
            while True:
                waiting = asyncio.create_task(events.get())
                await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    yield await work
                    return
                event = waiting.result()
                if isinstance(event, VolumeProgress):
                    self._metrics.volume_slices.labels(self.name, family.manifest.model).inc()
                yield event
        finally:
            work.cancel()
            await asyncio.wait({work})
            self._publish()

    async def _volume(self, family: VolumeFamily, request: Request, events: asyncio.Queue[VolumeEvent]) -> VolumeAnswer | Fault:
        try:
            request.deadline.check("the model")
            async with asyncio.timeout(request.deadline.remaining_s()):
                answer = await family.answer_volume(request, Stages(), events.put)
        except TimeoutError:
            self._metrics.observe_deadline("pool")
            return Fault(Kind.DEADLINE, "the deadline passed before the volume was done", param="deadline")
        except Fault as fault:
            if fault.kind is Kind.DEADLINE:
                self._metrics.observe_deadline("pool")
            return fault
        except Exception:
            log.exception("request %s failed in pool %s", request.request_id, self.name)
            return Fault(Kind.INTERNAL, "the model failed on this volume; the server's log has the details")
        self._metrics.observe_stages(self.name, answer.model.name, answer.stages)
        return answer

    async def readiness(self) -> str:
        """ "ready", or why not."""
        if self._unfit:
            return f"self-check failed: engine {next(iter(self._unfit.values()))}"
        return "ready" if await self._backend_ready() else "Triton is not ready"

    async def warm_up(self, wait_s: float, answer_s: float) -> None:
        """Run every model once, so that the first user does not pay, and check its engines.

        `wait_s`: for a Triton that is still starting; `answer_s`: for each answer. Raises Fault or SetupError where one does
        not come in time.
        """
        await warmup.run(self._families, wait_s, answer_s)
        if self._self_check is None:
            return
        for (model, engine), ok in (await self._self_check(answer_s)).items():
            self._metrics.set_selfcheck(model, engine, ok)
            if not ok:
                self._unfit.setdefault(model, engine)

    def _check_fit(self, model: str) -> None:
        if model in self._unfit:
            message = f"model {model} is not served: its engine {self._unfit[model]} failed the self-check"
            raise Fault(Kind.ENGINE_UNAVAILABLE, message)
