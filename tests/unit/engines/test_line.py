"""The waiting line: order, bound, whose turn it is, and the time that is told."""

import asyncio
import contextvars
import time

import pytest
from waiting_line import SLOTS, SPEC, Held, answer, ask, busy, let_go, made, objects, turns

from serving.domain.request import Deadline, Priority
from serving.engines import line
from serving.engines.line import Line
from serving.errors import Kind
from serving.telemetry import tracing


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
