"""Traces by OpenTelemetry, off unless an endpoint is named; nothing of it is imported while it is off.

A request is one trace: the front, the router, the pool with its stages' times, the engine, and Triton's own spans below that.
The context goes on as W3C Trace Context's `traceparent`, over HTTP and gRPC alike. Attributes are of the closed set below:
sizes, names of models and codes; never a pixel, a prompt, a label or a text, and of an error never its message.
"""

from __future__ import annotations

import contextvars
from contextlib import AbstractContextManager
from typing import Any

from serving import __version__
from serving.settings import TracingSettings
from serving.telemetry.stages import STAGES

ATTRIBUTES = frozenset(
    {"request_id", "route", "pool", "model", "priority", "outcome", "code", "features", "engine", "images", "image_bytes"}
    | {f"{stage}_ms" for stage in STAGES}
)
"""What may be said of a span, each with `medserve.` before it."""
TRACES_PATH = "/v1/traces"
EXPORT_EVERY_MS = 1000
MOST_CHARS = 128
Value = str | int | float | bool

_tracer: Any = None


class Span:
    """A span that is being made. Of one that is not sampled, and while tracing is off, nothing is kept."""

    def note(self, **attributes: Value) -> None:
        """Say something of it. Raises ValueError where the name is not one of ATTRIBUTES."""


class _Nothing(Span, AbstractContextManager[Span]):
    def __enter__(self) -> Span:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


class _Recorded(Span):
    def __init__(self, made: Any) -> None:
        self._made = made

    def note(self, **attributes: Value) -> None:
        unknown = attributes.keys() - ATTRIBUTES
        if unknown:
            raise ValueError(f"no span says {', '.join(sorted(unknown))}")
        for name, value in attributes.items():
            self._made.set_attribute(f"medserve.{name}", value[:MOST_CHARS] if isinstance(value, str) else value)


class _Recording(AbstractContextManager[Span]):
    def __init__(self, current: AbstractContextManager[Any], attributes: dict[str, Value]) -> None:
        self._current = current
        self._attributes = attributes

    def __enter__(self) -> Span:
        span = _Recorded(self._current.__enter__())
        span.note(**self._attributes)
        return span

    def __exit__(self, *exc: Any) -> None:
        self._current.__exit__(*exc)


_NOTHING = _Nothing()


def begin(settings: TracingSettings) -> None:
    """Send this process's spans to the collector from now on, where one is named. A second call changes nothing."""
    global _tracer
    if settings.endpoint and _tracer is None:
        _tracer = _provider(settings).get_tracer("medserve", __version__)


def span(name: str, parent: str = "", *, entry: bool = False, **attributes: Value) -> AbstractContextManager[Span]:
    """A span of this name around a block, below the one at work or below `parent`, a `traceparent` from another process.

    `entry`: where a call comes in. A `traceparent` that cannot be read begins a trace of its own, as the standard asks.
    """
    if _tracer is None:
        return _NOTHING
    return _Recording(_start(name, parent, entry), attributes)


def handed_on() -> str:
    """The `traceparent` for the next process; empty where nothing is recorded."""
    if _tracer is None:
        return ""
    context = _current().get_span_context()
    if not context.trace_flags.sampled:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


def trace_id() -> str:
    """Of the request at work, 32 hexadecimal digits; empty where nothing is recorded."""
    return handed_on()[3:35]


def context() -> contextvars.Context | None:
    """This request's context for work that another's task will begin; None, which means the beginner's own, while off."""
    return None if _tracer is None else contextvars.copy_context()


def _current() -> Any:
    from opentelemetry import trace

    return trace.get_current_span()


def _start(name: str, parent: str, entry: bool) -> AbstractContextManager[Any]:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    above = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    made: AbstractContextManager[Any] = _tracer.start_as_current_span(
        name,
        context=above,
        kind=SpanKind.SERVER if entry else SpanKind.INTERNAL,
        record_exception=False,
        set_status_on_exception=False,
    )
    return made


def _provider(settings: TracingSettings) -> Any:
    """A provider of our own, not the process's global one: Ray has a use for that."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        resource=Resource.create({"service.name": "medserve", "service.version": __version__}),
    )
    exporter = OTLPSpanExporter(settings.endpoint.rstrip("/") + TRACES_PATH)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_EVERY_MS))
    return provider
