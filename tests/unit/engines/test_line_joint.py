"""The waiting line: what goes together in one call, and that everybody gets their own rows."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting_line import SLOTS, SPEC, ask, busy, let_go, made, objects, turns

from serving.domain.request import Deadline, Priority
from serving.engines import line
from serving.engines.engine import EngineSpec, ignore
from serving.shm import Slot


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
