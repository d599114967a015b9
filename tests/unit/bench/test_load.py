import asyncio
import time
from itertools import repeat

import pytest

from serving.bench import load
from serving.bench.asking import Ask
from serving.bench.wire import Reply


class FakeLine:
    """Answers after a while; `fails`: the calls that get no answer."""

    def __init__(self, log, seconds=0.01, fails=()):
        self.log, self.seconds, self.fails = log, seconds, fails

    async def call(self, ask):
        self.log.append(time.perf_counter())
        number = len(self.log)
        await asyncio.sleep(self.seconds)
        if number in self.fails:
            raise ConnectionError
        return Reply(200, b"\r\nserver-timing:encode;dur=2\r\n", b'{"counts":"abc"}')

    async def close(self):
        pass


ASK = Ask("prompt", b"", b"", golden=b"abc")


async def test_a_closed_loop_keeps_its_workers_busy():
    log = []
    run = await load.closed(lambda: FakeLine(log), [repeat(ASK), repeat(ASK)], 0.1)
    assert len(run.samples) == len(log)
    assert 8 <= len(log) <= 24
    assert run.rate("prompt") == pytest.approx(len(log) / run.seconds)
    assert (run.wrong, run.failed) == (0, [])
    assert run.samples[0].stages_ms == {"encode": 2.0}


async def test_an_open_loop_does_not_wait_for_answers():
    log = []
    run = await load.opened(lambda: FakeLine(log, 0.1), repeat(ASK), [0.0, 0.01, 0.02, 0.03])
    assert len(run.samples) == 4
    assert log[-1] - log[0] < 0.08


async def test_a_late_client_counts_its_lateness():
    class Blocking(FakeLine):
        async def call(self, ask):
            time.sleep(0.05)  # noqa: ASYNC251  # the loop itself is late
            return Reply(200, b"", b"")

    run = await load.opened(lambda: Blocking([]), repeat(Ask("x", b"", b"")), [0.0, 0.0, 0.0])
    assert max(s.seconds for s in run.samples) >= 0.14


async def test_no_answer_and_wrong_masks_are_told_apart():
    run = await load.closed(lambda: FakeLine([], fails=(1,)), [iter([ASK, ASK])], 10)
    assert [s.status for s in run.samples] == [0, 200]
    assert run.samples[0].code == "ConnectionError"
    wrong = Ask("prompt", b"", b"", golden=b"xyz")
    run = await load.closed(lambda: FakeLine([]), [iter([wrong])], 10)
    assert run.wrong == 1


async def test_a_patient_worker_comes_back_with_the_same_call():
    class Full(FakeLine):
        async def call(self, ask):
            self.log.append(ask)
            return Reply(503 if len(self.log) < 3 else 200, b"\r\nretry-after:0.01\r\n", b'{"counts":"abc"}')

    other = Ask("other", b"", b"")
    log = []
    run = await load.closed(lambda: Full(log), [iter([ASK, other])], 10, patient=True)
    assert log == [ASK, ASK, ASK, other]
    assert [(s.kind, s.status) for s in run.samples] == [("prompt", 200), ("other", 200)]
    run = await load.closed(lambda: Full([]), [iter([ASK, ASK])], 10)
    assert [s.status for s in run.samples] == [503, 503]


async def test_a_patient_worker_goes_when_the_while_is_over():
    class Full(FakeLine):
        async def call(self, ask):
            return Reply(503, b"\r\nretry-after:0.01\r\n", b"")

    run = await load.closed(lambda: Full([]), [repeat(ASK)], 0.1, patient=True)
    assert run.samples == []


def test_arrivals_are_a_poisson_process_that_a_seed_repeats():
    times = load.arrivals(50, 20, seed=1)
    assert times == load.arrivals(50, 20, seed=1)
    assert 800 < len(times) < 1200
    assert times == sorted(times)
    assert times[-1] < 20
