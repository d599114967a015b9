import asyncio

import numpy as np
import pytest
from gated import Gated, turns

from serving.embeddings.vectors import ENTRY_BYTES, VectorStore
from serving.errors import Fault, Kind


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def maker(failure=None, floats=4, **more):
    """Makes rows of one batch."""
    return Gated(lambda missing: np.array([[index] * floats for index in missing], np.float32), failure, **more)


def room(entries, floats=4):
    return entries * (4 * floats + ENTRY_BYTES)


async def test_only_what_is_missing_is_made_in_one_call_and_given_in_order():
    store, make = VectorStore(room(9), 60), maker()
    assert (await store.get_or_make_all(["a", "b"], make))[1] == "miss"
    found, outcome = await store.get_or_make_all(["c", "b", "d", "c", "a"], make)
    assert (make.calls, outcome) == ([(0, 1), (0, 2)], "miss")
    assert [value[0] for value in found] == [0, 1, 2, 0, 0]
    assert (await store.get_or_make_all(["d", "a"], make))[1] == "hit"
    assert len(make.calls) == 2


async def test_values_are_read_only_copies_of_their_rows():
    store = VectorStore(room(9), 60)
    (value, _), _ = await store.get_or_make_all(["a", "b"], maker())
    assert (value.flags.writeable, value.base) == (False, None)


async def test_one_key_alone():
    store = VectorStore(room(9), 60)

    async def make():
        return np.ones(3, np.float32)

    outcomes = [(await store.get_or_make("k", make))[1] for _ in range(2)]
    assert outcomes == ["miss", "hit"]


async def test_the_budget_is_bytes_with_overhead_and_the_least_recently_used_leaves():
    store, make = VectorStore(room(2), 60), maker()
    await store.get_or_make_all(["a", "b"], make)
    assert store.get("a") is not None
    await store.get_or_make_all(["c"], make)
    assert [store.get(key) is not None for key in "abc"] == [True, False, True]
    assert (store.stats.bytes, store.stats.entries) == (room(2), 2)
    assert [store.stats.take_evictions(), store.stats.take_evictions()] == [1, 0]


async def test_what_is_above_the_budget_is_given_and_not_kept():
    store = VectorStore(room(1), 60)
    await store.get_or_make_all(["small"], maker())
    (big,), _ = await store.get_or_make_all(["big"], maker(floats=1000))
    assert big.shape == (1000,)
    assert (store.get("big"), store.stats.entries) == (None, 1)


async def test_time_to_live_counts_from_the_last_use():
    clock = Clock()
    store = VectorStore(room(9), 60, clock)
    await store.get_or_make_all(["used", "idle"], maker())
    clock.now_s += 59
    assert store.get("used") is not None
    clock.now_s += 1
    assert store.get("idle") is None
    assert store.get("used") is not None
    clock.now_s += 60
    assert (store.stats.entries, store.stats.bytes, store.stats.take_evictions()) == (0, 0, 2)


async def test_overlapping_calls_make_each_value_once():
    store, first, second = VectorStore(room(9), 60), maker(held=True), maker()
    one = asyncio.create_task(store.get_or_make_all(["a", "b"], first))
    await turns()
    other = asyncio.create_task(store.get_or_make_all(["b", "c"], second))
    same = asyncio.create_task(store.get_or_make_all(["a"], second))
    await turns()
    assert second.calls == [(1,)]
    first.open.set()
    outcomes = [(await task)[1] for task in (one, other, same)]
    assert outcomes == ["miss", "miss", "coalesced"]
    assert first.calls == [(0, 1)]


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_one_client_leaving_does_not_hurt_the_others(leaver):
    store, make = VectorStore(room(9), 60), maker(held=True)
    waiting = [asyncio.create_task(store.get_or_make_all(["a", "b"][: 2 - n // 2], make)) for n in range(3)]
    await turns()
    waiting[leaver].cancel()
    await turns()
    make.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[leaver], asyncio.CancelledError)
    assert sum(not isinstance(each, BaseException) for each in found) == 2
    assert (len(make.calls), make.cancelled) == (1, 0)
    assert store.get("a") is not None


async def test_when_all_have_left_it_is_cancelled_and_a_newcomer_starts_afresh():
    store, make = VectorStore(room(9), 60), maker(held=True)
    waiting = [asyncio.create_task(store.get_or_make_all(["a"], make)) for _ in range(2)]
    await turns()
    for task in waiting:
        task.cancel()
    await turns(1)
    newcomer = asyncio.create_task(store.get_or_make_all(["a"], maker()))
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await newcomer)[1] == "miss"
    assert (len(make.calls), make.cancelled) == (1, 1)
    assert store.get("a") is not None


async def test_a_failure_goes_to_those_who_waited_and_is_not_kept():
    store, make = VectorStore(room(9), 60), maker(Fault(Kind.ENGINE_FAILED, "no"), held=True)
    waiting = [asyncio.create_task(store.get_or_make_all(["a"], make)) for _ in range(3)]
    await turns()
    make.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [getattr(fault, "kind", None) for fault in found] == [Kind.ENGINE_FAILED] * 3
    assert (await store.get_or_make_all(["a"], maker()))[1] == "miss"


async def test_the_deadline_of_the_first_is_not_the_deadline_of_the_others():
    store, short, patient = VectorStore(room(9), 60), maker(Fault(Kind.DEADLINE, "too late"), held=True), maker()
    first = asyncio.create_task(store.get_or_make_all(["a", "b"], short))
    await turns()
    others = [asyncio.create_task(store.get_or_make_all(["b", "c"], patient)) for _ in range(3)]
    await turns()
    short.open.set()
    with pytest.raises(Fault) as raised:
        await first
    assert raised.value.kind is Kind.DEADLINE
    await asyncio.gather(*others)
    assert (len(short.calls), patient.calls) == (1, [(1,), (0,)])


async def test_a_failure_nobody_waits_for_is_not_reported_as_lost(caplog):
    store, make = VectorStore(room(9), 60), maker(ValueError("x"), held=True)
    waiting = asyncio.create_task(store.get_or_make_all(["a"], make))
    await turns()
    make.open.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await turns()
    assert caplog.records == []
