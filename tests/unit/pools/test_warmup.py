"""Each model is asked before a replica says that it is ready; one that is too slow says what to set."""

import pytest

from serving.errors import Fault, Kind, SetupError
from serving.pools import warmup
from tests.unit.families import fixtures


class Model:
    """Takes pictures. `faults`: raised first, in order."""

    manifest = fixtures.manifest("sam-vit-h", "adaptive", ())

    def __init__(self, *faults):
        self.faults, self.deadlines_s = list(faults), []

    async def answer(self, request, stages):
        self.deadlines_s.append(request.deadline.remaining_s())
        if self.faults:
            raise self.faults.pop(0)


async def test_each_answer_has_its_own_time(monkeypatch):
    monkeypatch.setattr(warmup, "RETRY_S", 0)
    model = Model(Fault(Kind.ENGINE_UNAVAILABLE, "still starting"))
    await warmup.run({"a": model, "b": model}, 30, 300)
    assert len(model.deadlines_s) == 1 + 2 * len(warmup.tasks("adaptive"))
    assert min(model.deadlines_s) > 200


async def test_one_that_is_too_slow_says_what_to_set():
    with pytest.raises(SetupError, match=r"^model a did not answer its warm-up within 300 s: .*TRITON__CALL_TIMEOUT_S$"):
        await warmup.run({"a": Model(Fault(Kind.DEADLINE, "passed"))}, 30, 300)


async def test_an_engine_that_stays_away_is_a_fault():
    with pytest.raises(Fault, match="away"):
        await warmup.run({"a": Model(Fault(Kind.ENGINE_UNAVAILABLE, "away"))}, -1, 300)
