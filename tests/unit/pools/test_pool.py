import asyncio

import pytest

from serving.domain.answer import Answer, Embeddings, ModelInfo
from serving.domain.request import Deadline, Embed, Request
from serving.errors import Fault, Kind
from serving.pools.pool import Pool
from serving.telemetry.metrics import Metrics


class OneFamily:
    manifest = None

    def __init__(self, outcome: Answer | Exception) -> None:
        self.outcome = outcome

    async def answer(self, request, stages):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def pool(outcome: Answer | Exception, metrics: Metrics) -> Pool:
    async def ready() -> bool:
        return True

    return Pool("adaptive", {"m": OneFamily(outcome)}, ready, metrics, lambda: None)  # type: ignore[dict-item]


ANSWER = Answer(Embeddings(None), ModelInfo("m", "f", "adaptive", ""), {"encode": 0.2}, "miss")  # type: ignore[arg-type]
REQUEST = Request(Embed(texts=("a",)), Deadline.after(3600), "id", model="m")


async def test_an_answer_is_timed_and_counted():
    metrics = Metrics()
    assert await pool(ANSWER, metrics).answer(REQUEST) is ANSWER
    await asyncio.sleep(0)
    text = metrics.scrape().decode()
    assert 'medserve_stage_duration_seconds_sum{model="m",pool="adaptive",stage="encode"} 0.2' in text
    assert 'medserve_features_cache_total{outcome="miss",pool="adaptive"} 1.0' in text
    assert 'medserve_features_cache_total{outcome="hit",pool="adaptive"} 0.0' in text


async def test_a_fault_is_a_value():
    fault = Fault(Kind.INVALID, "no")
    assert await pool(fault, Metrics()).answer(REQUEST) is fault


async def test_an_unexpected_error_says_nothing_about_itself(caplog: pytest.LogCaptureFixture):
    outcome = await pool(ValueError("/secret/path"), Metrics()).answer(REQUEST)
    assert isinstance(outcome, Fault)
    assert outcome.kind is Kind.INTERNAL
    assert "secret" not in outcome.message
    assert "secret" in caplog.text


async def test_a_deadline_that_passed_on_the_way_costs_nothing():
    metrics = Metrics()
    late = Request(REQUEST.task, Deadline.after(-1), "id", model="m")
    outcome = await pool(ANSWER, metrics).answer(late)
    assert isinstance(outcome, Fault)
    assert outcome.kind is Kind.DEADLINE
    assert 'medserve_deadline_exceeded_total{stage="pool"} 1.0' in metrics.scrape().decode()


async def test_a_model_whose_engine_fails_its_self_check_is_not_served(monkeypatch: pytest.MonkeyPatch):
    async def warm(families, wait_s, answer_s):
        return None

    async def checked(timeout_s):
        return {("m", "m_encoder"): True, ("m", "m_decoder"): False}

    monkeypatch.setattr("serving.pools.warmup.run", warm)
    metrics = Metrics()
    made = pool(ANSWER, metrics)
    made._self_check = checked
    assert await made.readiness() == "ready"
    await made.warm_up(60, 60)
    assert await made.readiness() == "self-check failed: engine m_decoder"
    outcome = await made.answer(REQUEST)
    assert isinstance(outcome, Fault)
    assert outcome.kind is Kind.ENGINE_UNAVAILABLE
    text = metrics.scrape().decode()
    assert 'medserve_selfcheck_ok{engine="m_encoder",model="m"} 1.0' in text
    assert 'medserve_selfcheck_ok{engine="m_decoder",model="m"} 0.0' in text
