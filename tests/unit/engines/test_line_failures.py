"""The waiting line: who left or is too late is never sent, and whose failure it is."""

import asyncio
import gc
from collections import Counter

import numpy as np
import pytest
from waiting_line import SLOTS, answer, ask, busy, failing, let_go, made, objects, turns, values

from serving.domain.request import Deadline
from serving.errors import Fault, Kind
from serving.shm import Slot


async def test_who_left_is_never_sent():
    engine, waiting = made()
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(n), slot=SLOTS[0]) for n in range(4)]
    alone = ask(waiting, objects(9), slot=SLOTS[1])
    await turns()
    for task in (tasks[0], tasks[2], alone):
        task.cancel()
    await turns()
    found = await let_go(engine, *first, *tasks, alone)
    assert engine.sent[1:] == [(1, 3)]
    assert [type(each) for each in found[1:]] == [
        asyncio.CancelledError,
        dict,
        asyncio.CancelledError,
        dict,
        asyncio.CancelledError,
    ]


async def test_who_is_too_late_is_told_so_and_never_sent():
    engine, waiting = made()
    first = await busy(engine, waiting)
    late = [ask(waiting, objects(n), slot=SLOTS[0], seconds=0.02) for n in range(2)]
    patient = ask(waiting, objects(5), slot=SLOTS[0])
    faults = await asyncio.wait_for(asyncio.gather(*late, return_exceptions=True), 30)
    assert {(fault.kind, fault.param) for fault in faults} == {(Kind.DEADLINE, "deadline")}
    assert all("decoder" in fault.message for fault in faults)
    await let_go(engine, *first, patient)
    assert engine.sent[1:] == [(5,)]


async def test_a_passed_deadline_does_not_even_wait():
    engine, waiting = made()
    with pytest.raises(Fault) as raised:
        await waiting.infer(objects(1), Deadline.after(-1))
    assert raised.value.kind is Kind.DEADLINE
    assert engine.sent == []


async def test_who_leaves_while_the_engine_works_hurts_nobody():
    engine, waiting = made()
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(n), slot=SLOTS[0]) for n in range(3)]
    first[0].cancel()
    await turns()
    assert engine.inside == 1, "what was sent goes on and holds its place"
    engine.let(2)
    found = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert [each["mask"].tolist() for each in found] == [[[0]], [[2]], [[4]]]
    tasks = [ask(waiting, objects(n), slot=SLOTS[0]) for n in range(3)]
    await turns()
    tasks[1].cancel()
    await turns()
    found = await let_go(engine, *tasks)
    assert [type(each) for each in found] == [dict, asyncio.CancelledError, dict]


async def test_one_bad_call_of_a_joint_one_fails_alone():
    engine, waiting = made(failing(Kind.ENGINE_FAILED, 2, 4))
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(n), slot=SLOTS[0]) for n in range(5)]
    await turns()
    found = (await let_go(engine, *first, *tasks))[1:]
    assert engine.sent[1:] == [(0, 1, 2, 3, 4), (0,), (1,), (2,), (3,), (4,)]
    assert [each.kind if isinstance(each, Fault) else each["mask"].tolist() for each in found] == [
        [[0]], [[2]], Kind.ENGINE_FAILED, [[6]], Kind.ENGINE_FAILED,
    ]  # fmt: skip


async def test_who_left_a_joint_call_is_not_tried_again():
    engine, waiting = made(failing(Kind.ENGINE_FAILED, 0))
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(n), slot=SLOTS[0]) for n in range(3)]
    await turns()
    engine.let()
    await first[0]
    await turns()
    assert engine.sent[1:] == [(0, 1, 2)]
    tasks[1].cancel()
    await turns()
    await let_go(engine, *tasks)
    assert engine.sent[2:] == [(0,), (2,)]


@pytest.mark.parametrize("kind", [Kind.ENGINE_UNAVAILABLE, Kind.POOL_FULL, Kind.UNKNOWN_HANDLE, Kind.DEADLINE])
async def test_what_is_nobody_s_fault_goes_to_all_of_a_joint_call(kind):
    engine, waiting = made(failing(kind, 1))
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(n), slot=SLOTS[0]) for n in range(3)]
    after = ask(waiting, objects(7), slot=SLOTS[1])
    await turns()
    found = await let_go(engine, *first, *tasks, after)
    assert [each.kind for each in found[1:4]] == [kind] * 3
    assert engine.sent[1:] == [(0, 1, 2), (7,)]
    assert found[4]["mask"].tolist() == [[14]]


async def test_an_unforeseen_error_goes_to_who_waits_and_the_line_goes_on():
    def function(inputs):
        if values(inputs) == (0,):
            raise ZeroDivisionError
        return answer(inputs)

    engine, waiting = made(function)
    tasks = [ask(waiting, objects(n)) for n in range(3)]
    found = await let_go(engine, *tasks)
    assert [type(each) for each in found] == [ZeroDivisionError, dict, dict]


async def test_rows_that_cannot_be_told_apart_are_a_failure():
    engine, waiting = made(lambda inputs: {"mask": np.zeros((1,), np.float32)})
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(n), slot=SLOTS[0]) for n in range(2)]
    await turns()
    found = await let_go(engine, *first, *tasks)
    assert all(isinstance(each, Exception) for each in found[1:])


async def test_who_gets_no_answer_is_told_no_time():
    engine, waiting = made(failing(Kind.ENGINE_FAILED, 1))
    told = []
    await let_go(engine, ask(waiting, objects(1), timing=lambda *seconds: told.append(seconds)))
    assert told == []


async def test_failures_keep_no_slot():
    """An error's frames hold the slot they worked on: nothing leads back from them to the error."""
    gc.collect()
    gc.disable()
    try:
        engine, waiting = made(failing(Kind.ENGINE_FAILED, 1))
        gone = Counter()

        class Watched(Slot):
            def __del__(self):
                gone[self.index] += 1

        async def fail(*numbers):
            tasks = [ask(waiting, objects(1), slot=Watched("r", numbers[0], 1, 0)) for _ in numbers]
            await turns()
            tasks.append(ask(waiting, objects(2), slot=Watched("r", numbers[-1], 2, 0)))
            await turns()
            tasks.pop().cancel()
            await let_go(engine, *tasks)
            engine.told.clear()
            await turns()

        await fail(0)
        await fail(1, 1, 1)
        await turns()
        assert gone == {0: 2, 1: 4}
    finally:
        gc.enable()
