"""What both fronts do with a call, whatever its wire: the deadline around the brain, faults for everything, the metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from serving.domain.answer import Answer
from serving.domain.request import Priority, Request
from serving.edge import limits
from serving.edge.caller import Caller, caller
from serving.edge.wire import Ask
from serving.errors import Fault, Kind
from serving.router.brain import Brain, Readiness
from serving.settings import Settings
from serving.telemetry import tracing
from serving.telemetry.later import after_answer

log = logging.getLogger(__name__)
T = TypeVar("T")

READY_EVERY_S = 10.0
"""How old what is noted of the pools' readiness may be."""
OFF_LOOP_BYTES = 256 * 1024
"""Parsing or writing more than this happens in a thread: the event loop belongs to everybody."""


class Observer(Protocol):
    """Where the fronts note what they did; implemented by `telemetry.metrics.Metrics`."""

    def observe_request(self, route: str, pool: str, model: str, outcome: str, priority: str, seconds: float) -> None:
        """One settled request; `pool` and `model` are empty where it failed before an answer."""
        ...

    def observe_deadline(self, stage: str) -> None:
        """One deadline that had passed when `stage` looked."""
        ...

    def observe_stages(self, pool: str, model: str, stages: Mapping[str, float]) -> None:
        """Stages that the front itself took, seconds each."""
        ...

    def observe_ready(self, pool: str, ready: bool) -> None:
        """Whether a pool takes work."""
        ...


@dataclass
class Exchange:
    """One call from its first byte to its answer: what is known of it so far. `route` is a bounded label.

    `front`: "http" or "grpc". `trace`: the caller's `traceparent`, or empty.
    """

    route: str
    request_id: str
    front: str = "http"
    trace: str = ""
    started: float = field(default_factory=time.perf_counter)
    priority: Priority = Priority.INTERACTIVE
    pool: str = ""
    model: str = ""
    stages: dict[str, float] = field(default_factory=dict)
    features: str = ""

    def seconds(self) -> float:
        """Since the first byte."""
        return time.perf_counter() - self.started


async def off_loop(size_bytes: int, work: Callable[[], T]) -> T:
    """Run `work` here where it is small, else in a thread."""
    return work() if size_bytes <= OFF_LOOP_BYTES else await asyncio.to_thread(work)


class Desk:
    """The brain with its settings and observer; one a process, shared by both fronts or one each."""

    def __init__(self, brain: Brain, settings: Settings, observer: Observer) -> None:
        self.brain = brain
        self.settings = settings
        self._observer = observer

    async def readiness(self) -> Readiness:
        """The brain's, noted part by part."""
        found = await self.brain.readiness()
        for part, state in found.parts.items():
            self._observer.observe_ready(part, state == "ready")
        return found

    async def keep_noting(self, every_s: float = READY_EVERY_S) -> None:
        """The readiness again and again, as long as this process lives: a scrape need not come by way of its router.

        A pod's exporter reads what was noted, and a router that nobody asks for `/readyz` would have noted nothing for hours.
        """
        while True:
            try:
                await self.readiness()
            except Exception:
                log.exception("the pools' readiness could not be asked for")
            await asyncio.sleep(every_s)

    def greet(self, exchange: Exchange, headers: Mapping[str, str], timeout_s: float | None = None) -> Caller:
        """Who calls. Raises Fault."""
        try:
            found = caller(headers, exchange.request_id, self.settings, timeout_s)
        except Fault as fault:
            if fault.kind is Kind.DEADLINE:
                self._observer.observe_deadline("edge")
            raise
        exchange.priority = found.priority
        return found

    async def answer(self, exchange: Exchange, who: Caller, ask: Ask) -> Answer:
        """Ask the brain, for no longer than the deadline allows. Raises Fault."""
        request = Request(ask.task, who.deadline, who.request_id, ask.model, who.tenant, who.priority)
        try:
            left_s = who.deadline.check("the router")
        except Fault:
            self._observer.observe_deadline("edge")
            raise
        try:
            async with asyncio.timeout(left_s) as clock:
                given = await self.brain.answer(request)
        except TimeoutError as exc:
            if not clock.expired():
                raise
            self._observer.observe_deadline("edge")
            raise self.late(Fault(Kind.DEADLINE, "the deadline passed before the answer was ready")) from exc
        except Fault as fault:
            if fault.kind is not Kind.DEADLINE:
                raise
            raise self.late(fault) from fault
        exchange.pool, exchange.model = given.model.pool, given.model.name
        exchange.stages, exchange.features = dict(given.stages), given.features
        return given

    def late(self, fault: Fault) -> Fault:
        """See `limits.late`."""
        return limits.late(fault, self.settings.limits.default_deadline_s, self.settings.limits.max_deadline_s)

    def serialised(self, exchange: Exchange, seconds: float) -> None:
        """Note how long writing the answer took."""
        exchange.stages["serialise"] = exchange.stages.get("serialise", 0.0) + seconds
        after_answer(self._observer.observe_stages, exchange.pool, exchange.model, {"serialise": seconds})

    async def settle(self, exchange: Exchange, work: Awaitable[T]) -> T | Fault:
        """The result, or the Fault for whatever went wrong: nothing but a cancellation leaves as an exception."""
        with tracing.span(exchange.route, exchange.trace, entry=True, request_id=exchange.request_id) as span:
            kind: Kind | None = None
            try:
                return await work
            except Fault as fault:
                kind = fault.kind
                return fault
            except asyncio.CancelledError:
                kind = Kind.CANCELLED
                raise
            except Exception:
                kind = Kind.INTERNAL
                log.exception("request %s to %s failed", exchange.request_id, exchange.route)
                return Fault(kind, "the server failed on this request; its log has the details under this request id")
            finally:
                self._note(exchange, kind, span)

    def _note(self, exchange: Exchange, kind: Kind | None, span: tracing.Span) -> None:
        """Trace one settled call now, count and log it when it is answered. `kind`: of its fault, if there was one."""
        span.note(
            route=exchange.route, pool=exchange.pool, model=exchange.model, priority=exchange.priority.value,
            outcome=_outcome(kind), code=kind.row.code if kind else "", features=exchange.features,
        )  # fmt: skip
        after_answer(self._count, exchange, kind, exchange.seconds())

    def _count(self, exchange: Exchange, kind: Kind | None, seconds: float) -> None:
        labels = exchange.route, exchange.pool, exchange.model, _outcome(kind), exchange.priority.value
        self._observer.observe_request(*labels, seconds)
        if log.isEnabledFor(logging.INFO):
            log.info("request", extra={"fields": request_line(exchange, kind, seconds)})


def _outcome(kind: Kind | None) -> str:
    return kind.row.outcome if kind else "ok"


def request_line(exchange: Exchange, kind: Kind | None, seconds: float) -> dict[str, Any]:
    """What is logged of one settled call: never who called, and nothing of what was sent. Times in milliseconds."""
    return {
        "request_id": exchange.request_id,
        "front": exchange.front,
        "route": exchange.route,
        "status": _status(exchange.front, kind),
        "code": kind.row.code if kind else "ok",
        "pool": exchange.pool,
        "model": exchange.model,
        "priority": exchange.priority.value,
        "features": exchange.features,
        "total_ms": round(seconds * 1000, 3),
        "stages_ms": {stage: round(took * 1000, 3) for stage, took in exchange.stages.items()},
        "trace_id": tracing.trace_id(),
    }


def _status(front: str, kind: Kind | None) -> int | str:
    if front == "grpc":
        return kind.row.grpc if kind else "OK"
    return kind.row.http if kind else 200
