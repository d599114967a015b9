"""One encode for all who ask at the same time: who is hurt by whose leaving or failure, and what is left behind."""

import asyncio
import gc

import pytest

from serving.errors import Fault, Kind
from tests.unit.embeddings.encoding import Gate, kind_of, put, subject, turns


async def test_misses_at_the_same_time_make_one_encode(store):
    gate = Gate()
    waiting = [asyncio.create_task(store.get_or_encode(subject("k"), gate.encode)) for _ in range(5)]
    await turns()
    gate.open.set()
    found = await asyncio.gather(*waiting)
    assert len(gate.calls) == 1
    assert [outcome for _, outcome in found] == ["miss"] + ["coalesced"] * 4
    assert len({(made.slot.index, made.slot.generation) for made, _ in found}) == 1


async def test_different_keys_do_not_wait_for_each_other(store):
    gate = Gate()
    slow = asyncio.create_task(store.get_or_encode(subject("slow"), gate.encode))
    await turns()
    assert (await put(store, "fast"))[1] == "miss"
    gate.open.set()
    await slow


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_one_client_leaving_does_not_hurt_the_others(store, leaver):
    gate = Gate()
    waiting = [asyncio.create_task(store.get_or_encode(subject("k"), gate.encode)) for _ in range(3)]
    await turns()
    waiting[leaver].cancel()
    await turns()
    gate.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[leaver], asyncio.CancelledError)
    assert all(found[index][0].handle == "h.k" for index in range(3) if index != leaver)
    assert (len(gate.calls), gate.cancelled) == (1, 0)
    assert store.get("k") is not None


async def test_when_all_have_left_the_encode_is_cancelled_and_a_newcomer_starts_afresh(store):
    gate = Gate()
    waiting = [asyncio.create_task(store.get_or_encode(subject("k"), gate.encode)) for _ in range(2)]
    await turns()
    for task in waiting:
        task.cancel()
    await turns(1)
    newcomer = asyncio.create_task(put(store, "k"))
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await asyncio.wait_for(newcomer, 30))[1] == "miss"
    await turns()
    assert (len(gate.calls), gate.cancelled) == (1, 1)
    assert store.get("k") is not None


async def test_a_failure_goes_to_those_who_waited_and_is_not_kept(store):
    gate = Gate(failure=Fault(Kind.ENGINE_FAILED, "no"))
    waiting = [asyncio.create_task(store.get_or_encode(subject("k"), gate.encode)) for _ in range(3)]
    await turns()
    gate.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [getattr(fault, "kind", None) for fault in found] == [Kind.ENGINE_FAILED] * 3
    assert len(gate.calls) == 1
    # The errors are still held here, and with them the frames of the encode: its key is free all the same.
    assert (await asyncio.wait_for(put(store, "k"), 30))[1] == "miss"


async def test_failed_encodes_leave_no_slot_behind(store, no_collector):
    async def fail(slot):
        raise Fault(Kind.ENGINE_UNAVAILABLE, "away")

    async def joint():
        found = await asyncio.gather(
            *(store.get_or_encode(subject("k"), fail) for _ in range(3)), put(store, "other"), return_exceptions=True
        )
        assert [isinstance(each, Fault) for each in found] == [True, True, True, False]

    for n in range(5):
        assert await kind_of(store.get_or_encode(subject(f"k{n}"), fail)) is Kind.ENGINE_UNAVAILABLE
        await turns()
    await joint()
    await turns()
    held = [(await put(store, key))[0] for key in "ab"]
    assert len({features.slot.index for features in held}) == 2


async def test_cancelled_encodes_leave_no_slot_behind(store, no_collector):
    async def leave(key):
        waiting = [asyncio.create_task(store.get_or_encode(subject(key), Gate().encode)) for _ in range(2)]
        await turns(2)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    for n in range(5):
        await leave(f"k{n}")
        await turns()
    held = [(await put(store, key))[0] for key in "ab"]
    assert len({features.slot.index for features in held}) == 2


async def test_an_encode_that_is_cancelled_before_it_begins_leaves_nothing(store, no_collector):
    task = asyncio.create_task(store.get_or_encode(subject("k"), Gate().encode))
    await turns(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    del task
    await turns()
    held = [(await put(store, key))[0] for key in "kb"]
    assert len({features.slot.index for features in held}) == 2


async def test_the_deadline_of_the_first_is_not_the_deadline_of_the_others(store):
    short, patient = Gate(failure=Fault(Kind.DEADLINE, "too late")), Gate()
    patient.open.set()
    first = asyncio.create_task(store.get_or_encode(subject("k"), short.encode))
    await turns()
    others = [asyncio.create_task(store.get_or_encode(subject("k"), patient.encode)) for _ in range(3)]
    await turns()
    short.open.set()
    with pytest.raises(Fault) as raised:
        await first
    assert raised.value.kind is Kind.DEADLINE
    found = await asyncio.wait_for(asyncio.gather(*others), 30)
    assert sorted(outcome for _, outcome in found) == ["coalesced", "coalesced", "miss"]
    assert (len(short.calls), len(patient.calls)) == (1, 1)


async def test_a_failure_nobody_waits_for_is_not_reported_as_lost(store, caplog):
    gate = Gate(failure=ValueError("x"))
    waiting = asyncio.create_task(store.get_or_encode(subject("k"), gate.encode))
    await turns()
    gate.open.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await turns()
    gc.collect()
    assert caplog.records == []


async def test_joining_what_nobody_encodes_gives_nothing(store):
    assert await store.join("k") is None
    await put(store, "k")
    assert await store.join("k") is None, "what is held is got, not joined"


async def test_who_joins_gets_the_features_and_keeps_the_encode_alive(store):
    gate = Gate()
    first = asyncio.create_task(store.get_or_encode(subject("k"), gate.encode))
    await turns()
    joined = asyncio.create_task(store.join("k"))
    await turns()
    first.cancel()
    await turns()
    gate.open.set()
    assert (await joined).handle == "h.k"
    assert (len(gate.calls), gate.cancelled) == (1, 0)


@pytest.mark.parametrize(("kind", "told"), [(Kind.DEADLINE, None), (Kind.ENGINE_FAILED, Kind.ENGINE_FAILED)])
async def test_who_joins_a_failing_encode_is_told_except_of_its_owner_s_deadline(store, kind, told):
    gate = Gate(failure=Fault(kind, "no"))
    first = asyncio.create_task(store.get_or_encode(subject("k"), gate.encode))
    await turns()
    joined = asyncio.create_task(store.join("k"))
    await turns()
    gate.open.set()
    assert await kind_of(first) is kind
    if told is None:
        assert await joined is None
    else:
        assert await kind_of(joined) is told
