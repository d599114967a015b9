import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError

from serving.settings import TracingSettings
from serving.telemetry import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    return lambda: {span.name: span for span in exporter.get_finished_spans()}


def test_off_it_is_nothing_and_one_and_the_same():
    tracing.begin(TracingSettings())
    with tracing.span("segment", PARENT, request_id="r") as span:
        span.note(anything="goes")
        assert tracing.handed_on() == tracing.trace_id() == ""
    assert tracing.span("a") is tracing.span("b")
    assert tracing.context() is None


def test_a_span_goes_below_the_caller_s_and_hands_itself_on(spans):
    with tracing.span("segment", PARENT, entry=True, request_id="r1"):
        handed = tracing.handed_on()
        assert tracing.trace_id() == PARENT.split("-")[1]
    with tracing.span("pool", handed) as span:
        span.note(code="x" * 500)
    front, pool = spans()["segment"], spans()["pool"]
    assert f"{front.parent.span_id:016x}" == PARENT.split("-")[2]
    assert pool.parent.span_id == front.context.span_id
    assert front.attributes["medserve.request_id"] == "r1"
    assert len(pool.attributes["medserve.code"]) == tracing.MOST_CHARS


@pytest.mark.parametrize("parent", ["", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", PARENT + "\n\n"])
def test_no_context_or_one_that_cannot_be_read_begins_a_trace(spans, parent):
    with tracing.span("segment", parent):
        pass
    assert spans()["segment"].context.trace_id


def test_a_caller_who_says_no_is_not_traced(spans):
    with tracing.span("segment", PARENT[:-1] + "0"):
        assert tracing.handed_on() == ""
    assert spans() == {}


def test_nothing_else_can_be_said_of_a_span_and_errors_keep_their_words(spans):
    with pytest.raises(ValueError, match="prompt"), tracing.span("segment", prompt="left lung"):
        pass

    def fail():
        with tracing.span("pool"):
            raise RuntimeError("DOE^JANE")

    with pytest.raises(RuntimeError):
        fail()
    assert spans()["pool"].events == ()
    assert "DOE" not in spans()["pool"].to_json()


async def test_work_that_another_task_begins_stays_in_its_own_trace(spans):
    with tracing.span("mine"):
        mine, handed = tracing.context(), tracing.handed_on()

    async def work():
        return tracing.handed_on()

    with tracing.span("another"):
        assert await asyncio.create_task(work(), context=mine) == handed


def test_an_endpoint_is_an_address():
    with pytest.raises(ValidationError):
        TracingSettings(endpoint="collector:4318")
