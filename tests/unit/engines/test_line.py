"""The waiting line: order, bound, what goes together, what is never sent, and whose failure it is."""

import asyncio
import contextvars
import gc
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.request import Deadline, Priority
from serving.engines import line
from serving.engines.engine import EngineSpec, TensorSpec, ignore
from serving.engines.fake import FakeEngine
from serving.engines.line import Line
from serving.errors import Fault, Kind
from serving.shm import Slot
from serving.telemetry import tracing

SPEC = EngineSpec(
    "decoder",
    (TensorSpec("points", "float32", (-1, -1, 2)), TensorSpec("labels", "int64", (-1, -1))),
    (TensorSpec("mask", "float32", (-1,)), TensorSpec("count", "int64", (-1,))),
    join=1,
)
SLOTS = tuple(Slot("r", index, 1, 0) for index in range(3))


def objects(*values, points=2):
    """Objects (1, P, N, 2) that are told apart by a value each."""
    filled = np.zeros((1, len(values), points, 2), np.float32)
    filled[..., 0] = np.array(values)[None, :, None]
    return {"points": filled, "labels": np.ones((1, len(values), points), np.int64)}


def values(inputs):
    return tuple(inputs["points"][0, :, 0, 0].astype(int))


def answer(inputs):
    return {"mask": 2 * inputs["points"][:, :, 0, 0], "count": inputs["labels"].sum(axis=2)}


@dataclass
class Held(FakeEngine):
    """A fake whose calls wait until they are let go. `sent`: what each call brought; `most`: calls at a time."""

    sent: list = field(default_factory=list)
    told: list = field(default_factory=list)
    inside: int = 0
    most: int = 0
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def let(self, calls=1):
        """Let the next calls go through."""
        for _ in range(calls):
            self.gate.release()

    async def infer(self, inputs, deadline, **more):
        self.sent.append(values(inputs))
        self.told.append((deadline, more))
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.gate.acquire()
            return await super().infer(inputs, deadline, **more)
        finally:
            self.inside -= 1


def made(function=answer, spec=SPEC, in_flight=1, **given):
    engine = Held(spec, function)
    return engine, Line(engine, in_flight, **given)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def ask(waiting, inputs, *, seconds=60.0, **given):
    """A call as a task of its own, begun in the order of asking."""
    return asyncio.create_task(waiting.infer(inputs, Deadline.after(seconds), **given))


async def busy(engine, waiting, calls=1):
    """The line with that many calls under way, so that what comes next has to wait."""
    tasks = [ask(waiting, objects(-1 - n), slot=None) for n in range(calls)]
    await turns()
    assert engine.sent == [(-1 - n,) for n in range(calls)]
    return tasks


async def let_go(engine, *tasks):
    engine.let(1000)
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)


async def test_a_call_alone_goes_through_as_it_is():
    engine, waiting = made()
    engine.let()
    assert waiting.spec is SPEC
    deadline = Deadline.after(60)
    found = await waiting.infer(objects(3, 4), deadline, outputs=("mask",), slot=SLOTS[0], priority=Priority.BULK)
    assert {name: value.tolist() for name, value in found.items()} == {"mask": [[6, 8]]}
    ((told, more),) = engine.told
    assert told is deadline
    assert more == {"outputs": ("mask",), "priority": Priority.BULK, "slot": SLOTS[0]}


async def test_interactive_work_goes_before_bulk():
    engine, waiting = made()
    first = await busy(engine, waiting)
    order = (Priority.BULK, Priority.INTERACTIVE, Priority.BULK, Priority.INTERACTIVE)
    tasks = [ask(waiting, objects(n), priority=priority) for n, priority in enumerate(order)]
    await turns()
    await let_go(engine, *first, *tasks)
    assert engine.sent == [(-1,), (1,), (3,), (0,), (2,)]
    assert [more["priority"] for _, more in engine.told[1:]] == [Priority.INTERACTIVE] * 2 + [Priority.BULK] * 2


async def test_bulk_gets_every_eighth_turn_where_both_wait():
    engine, waiting = made()
    first = await busy(engine, waiting)
    bulk = [ask(waiting, objects(100 + n), priority=Priority.BULK) for n in range(3)]
    urgent = [ask(waiting, objects(n)) for n in range(20)]
    await turns()
    await let_go(engine, *first, *bulk, *urgent)
    sent = [value for (value,) in engine.sent[1:]]
    assert sent == [*range(7), 100, *range(7, 14), 101, *range(14, 20), 102]


async def test_bulk_takes_a_quarter_of_the_places_while_interactive_work_is_about():
    engine, waiting = made(in_flight=8)
    urgent = [ask(waiting, objects(n)) for n in range(2)]
    await turns()
    bulk = [ask(waiting, objects(100 + n), priority=Priority.BULK) for n in range(12)]
    await turns()
    assert engine.inside == 4, "two and two: places stay free for who clicks next"
    engine.let(2)
    await asyncio.gather(*urgent)
    await turns()
    assert engine.inside == 8, "alone it may have them all"
    await let_go(engine, *bulk)


async def test_a_full_line_refuses_at_once_and_each_priority_has_its_own_bound():
    engine, waiting = made(longest=2)
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(n)) for n in range(3)]
    bulk = ask(waiting, objects(9), priority=Priority.BULK)
    fault = (await asyncio.wait_for(asyncio.gather(tasks[2], return_exceptions=True), 30))[0]
    assert (fault.kind, fault.retry_after_s) == (Kind.POOL_FULL, line.RETRY_AFTER_S)
    tasks[0].cancel()
    await turns()
    late = ask(waiting, objects(5))
    await turns()
    await let_go(engine, *first, tasks[1], bulk, late)
    assert engine.sent[1:] == [(1,), (5,), (9,)]


@pytest.mark.parametrize("in_flight", [1, 2, 5])
async def test_calls_at_a_time_are_bounded_and_go_on_when_one_is_done(in_flight):
    engine, waiting = made(in_flight=in_flight)
    tasks = [ask(waiting, objects(n)) for n in range(12)]
    await turns()
    assert engine.inside == in_flight
    assert [found["mask"].tolist() for found in await let_go(engine, *tasks)] == [[[2 * n]] for n in range(12)]
    assert (engine.most, engine.calls) == (in_flight, 12)
    assert engine.sent == [(n,) for n in range(12)]


async def test_calls_on_one_slot_go_together_and_each_gets_its_own_rows():
    engine, waiting = made()
    first = await busy(engine, waiting)
    several = [(1,), (2, 3), (4, 5, 6), (7,)]
    tasks = [ask(waiting, objects(*each), slot=SLOTS[0]) for each in several]
    await turns()
    found = (await let_go(engine, *first, *tasks))[1:]
    assert engine.sent[1:] == [(1, 2, 3, 4, 5, 6, 7)]
    assert engine.calls == 2
    for each, given_back in zip(several, found, strict=True):
        assert given_back["mask"].tolist() == [[2 * value for value in each]]
        assert given_back["count"].tolist() == [[2] * len(each)]


async def test_equal_names_of_one_slot_are_the_same_slot():
    engine, waiting = made()
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(n), slot=Slot("r", 0, 1, 0)) for n in range(3)]
    await turns()
    await let_go(engine, *first, *tasks)
    assert engine.sent[1:] == [(0, 1, 2)]


@pytest.mark.parametrize(
    "one_and_other",
    [
        ({"slot": SLOTS[0]}, {"slot": SLOTS[1]}),
        ({"slot": SLOTS[0]}, {"slot": Slot("r", 0, 2, 0)}),
        ({"slot": SLOTS[0], "outputs": ("mask",)}, {"slot": SLOTS[0], "outputs": ("count",)}),
        ({"slot": SLOTS[0], "outputs": ("mask",)}, {"slot": SLOTS[0]}),
        ({"slot": SLOTS[0], "points": 2}, {"slot": SLOTS[0], "points": 3}),
        ({"slot": None}, {"slot": None}),
        ({"slot": SLOTS[0]}, {"slot": None}),
    ],
    ids=["slots", "generations", "outputs", "all outputs", "shapes", "no slots", "no slot"],
)
async def test_what_differs_does_not_go_together(one_and_other):
    engine, waiting = made()
    first = await busy(engine, waiting)
    tasks = []
    for n, each in enumerate(one_and_other):
        given_to = dict(each)
        tasks.append(ask(waiting, objects(n, points=given_to.pop("points", 2)), **given_to))
    await turns()
    assert not [error for error in await let_go(engine, *first, *tasks) if isinstance(error, Exception)]
    assert engine.sent[1:] == [(0,), (1,)]


async def test_an_engine_that_joins_nothing_gets_each_call_alone():
    spec = EngineSpec("encoder", SPEC.inputs, SPEC.outputs)
    engine, waiting = made(spec=spec)
    tasks = [ask(waiting, objects(n), slot=SLOTS[0]) for n in range(3)]
    await let_go(engine, *tasks)
    assert engine.sent == [(0,), (1,), (2,)]


async def test_bulk_work_on_an_image_goes_along_with_a_click_on_it_and_nobody_else_is_passed():
    engine, waiting = made()
    first = await busy(engine, waiting)
    order = ((1, SLOTS[0], Priority.BULK), (2, SLOTS[1], Priority.INTERACTIVE), (3, SLOTS[0], Priority.INTERACTIVE))
    tasks = [ask(waiting, objects(n), slot=slot, priority=priority) for n, slot, priority in order]
    await turns()
    await let_go(engine, *first, *tasks)
    assert engine.sent[1:] == [(2,), (3, 1)]
    assert engine.told[2][1]["priority"] is Priority.INTERACTIVE


async def test_a_joint_call_has_the_latest_deadline_of_its_calls():
    engine, waiting = made()
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(n), slot=SLOTS[0], seconds=seconds) for n, seconds in enumerate((50, 900, 70))]
    await turns()
    await let_go(engine, *first, *tasks)
    assert 800 < engine.told[1][0].remaining_s() <= 900


async def test_rows_of_one_call_are_bounded():
    assert line.MOST_ROWS == 16
    engine, waiting = made()
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(*range(5 * n, 5 * n + 5)), slot=SLOTS[0]) for n in range(4)]
    tasks.append(ask(waiting, objects(20), slot=SLOTS[0]))
    await turns()
    await let_go(engine, *first, *tasks)
    assert [len(rows) for rows in engine.sent[1:]] == [15, 6]
    assert engine.sent[1] == tuple(range(15))


async def test_a_call_of_more_rows_than_the_bound_goes_alone():
    engine, waiting = made(most_rows=4)
    first = await busy(engine, waiting)
    tasks = [ask(waiting, objects(*rows), slot=SLOTS[0]) for rows in ((1,), (2, 3, 4, 5, 6), (7,))]
    await turns()
    found = await let_go(engine, *first, *tasks)
    assert (2, 3, 4, 5, 6) in engine.sent
    assert [each["mask"].shape[1] for each in found[1:]] == [1, 5, 1]


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


def failing(kind, *bad):
    """An engine that fails on each call that brings one of these values."""

    def function(inputs):
        if set(values(inputs)) & set(bad):
            raise Fault(kind, "no")
        return answer(inputs)

    return function


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


class Clock:
    """The line's clock, which can be put forward by hand."""

    def __init__(self):
        self.ahead_s = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead_s


def about(*seconds):
    """Told by a clock that was put forward by hours; the test itself may take some minutes."""
    return tuple(pytest.approx(each, abs=300) for each in seconds)


async def test_time_is_told(monkeypatch):
    """3000 s of waiting, and 8000 s of work that two calls share."""
    clock, told = Clock(), {}
    monkeypatch.setattr(line, "time", clock)
    engine, waiting = made()

    def timed(n, slot):
        return ask(waiting, objects(n), slot=slot, timing=lambda *seconds: told.setdefault(n, seconds))

    first = timed(0, None)
    await turns()
    joint = [timed(n, SLOTS[0]) for n in (1, 2)]
    await turns()
    clock.ahead_s += 3000
    engine.let()
    await first
    await turns()
    assert engine.sent == [(0,), (1, 2)]
    clock.ahead_s += 8000
    engine.let()
    await asyncio.gather(*joint)
    assert told == {0: about(0, 3000), 1: about(3000, 4000), 2: about(3000, 4000)}


async def test_work_that_was_sent_ahead_begins_when_the_one_before_is_done(monkeypatch):
    clock, told = Clock(), []
    monkeypatch.setattr(line, "time", clock)
    engine, waiting = made(in_flight=2)
    tasks = [ask(waiting, objects(n), timing=lambda *seconds: told.append(seconds)) for n in range(2)]
    await turns()
    assert engine.inside == 2
    for task in tasks:
        clock.ahead_s += 5000
        engine.let()
        await task
    assert told == [about(0, 5000), about(5000, 5000)]


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


@given(
    st.lists(
        st.tuples(
            st.integers(1, 6), st.sampled_from([None, *SLOTS]), st.sampled_from(list(Priority)), st.sampled_from([1, 2]),
            st.booleans(),
        ),
        max_size=25,
    ),
    st.integers(1, 3),
)  # fmt: skip
def test_everybody_gets_their_own_rows_whatever_comes(calls, in_flight):
    async def run():
        engine, waiting = made(in_flight=in_flight)
        number, tasks, leavers = iter(range(1, 10_000)), [], []
        for rows, slot, priority, points, leaves in calls:
            mine = [next(number) for _ in range(rows)]
            inputs = objects(*mine, points=points)
            task = asyncio.create_task(waiting.infer(inputs, Deadline.after(60), slot=slot, priority=priority, timing=ignore))
            (leavers if leaves else tasks).append((mine, task))
        await turns()
        for _, task in leavers:
            task.cancel()
        await let_go(engine, *(task for _, task in tasks))
        for mine, task in tasks:
            assert task.result()["mask"].tolist() == [[2 * value for value in mine]]
        assert engine.most <= in_flight
        assert all(len(rows) <= line.MOST_ROWS for rows in engine.sent)
        sent = Counter(value for rows in engine.sent for value in rows)
        assert all(count == 1 for count in sent.values())

    asyncio.run(run())


async def test_a_call_is_sent_in_the_context_of_who_asked_and_not_of_who_made_room(monkeypatch):
    asker = contextvars.ContextVar("asker")
    monkeypatch.setattr(tracing, "_tracer", object())
    sent_by = []

    class Noting(Held):
        async def infer(self, inputs, deadline, **said):
            sent_by.append(asker.get())
            return await super().infer(inputs, deadline, **said)

    engine = Noting(SPEC, answer)
    waiting = Line(engine, in_flight=1)

    async def ask(name, value):
        asker.set(name)
        await waiting.infer(objects(value), Deadline.after(30))

    tasks = []
    for number, name in enumerate(("first", "second", "third")):
        tasks.append(asyncio.create_task(ask(name, number)))
        await asyncio.sleep(0)
    engine.let(3)
    await asyncio.gather(*tasks)
    assert sent_by == ["first", "second", "third"]
