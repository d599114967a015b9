"""The Features store of one replica, over small real arenas: single-flight, handles, and who is hurt by whose failure."""

import asyncio
import gc
from contextlib import contextmanager

import numpy as np
import pytest
from arenas import small_arena

from serving import shm
from serving.domain.image import Frame
from serving.embeddings.arena import Arena
from serving.embeddings.store import POLL_S, FeaturesStore, Subject
from serving.errors import Fault, Kind

FRAME = Frame((640, 480), (0.7, 0.7), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "CT")


@pytest.fixture
def store():
    with small_arena() as arena:
        yield FeaturesStore(arena, 60)


@pytest.fixture
def no_collector():
    """What is let go must go at once, not when the collector of reference cycles comes by."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def subject(key, tenant="t", digest="m"):
    return Subject(key, f"h.{key}", tenant, digest, FRAME, (256, 192))


def contents(store, features):
    return np.memmap(shm.ROOT / features.slot.region, np.uint8, "r+")[features.slot.offset :][: store.arena.slot_bytes]


async def nothing(slot):
    pass


async def put(store, key, **who):
    """Features made by an encode that does nothing. The loop lets its task go a turn later, and the slot with it."""
    found = await store.get_or_encode(subject(key, **who), nothing)
    await turns()
    return found


async def kind_of(awaitable):
    """The kind of the Fault that is raised. The error itself is let go: its frames hold what they worked on."""
    try:
        await awaitable
    except Fault as fault:
        return fault.kind
    raise AssertionError("no fault")


class Gate:
    """An encode that waits until it is let go, and tells how often it began, ended and was cancelled."""

    def __init__(self, failure=None, fill=None):
        self.failure, self.fill = failure, fill
        self.begun = self.cancelled = 0
        self.open = asyncio.Event()

    async def encode(self, slot):
        self.begun += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_first_a_miss_then_hits(store):
    made, outcome = await put(store, "k")
    assert (outcome, made.handle, made.frame, made.content_px) == ("miss", "h.k", FRAME, (256, 192))
    again, outcome = await put(store, "k")
    assert outcome == "hit"
    for found in (again, store.get("k"), store.find("h.k", "t", "m")):
        assert (found.slot.index, found.slot.generation) == (made.slot.index, made.slot.generation)
        assert (found.handle, found.frame, found.content_px) == ("h.k", FRAME, (256, 192))
    assert store.get("absent") is None


@pytest.mark.parametrize("frame", [Frame((1, 1)), Frame((4, 4), (0.5, 0.25)), Frame((2**31, 2**31), modality="é" * 16), FRAME])
async def test_frames_come_back_as_they_went(store, frame):
    said = Subject("k", "h.k", "t", "m", frame, (256, 1))
    await store.get_or_encode(said, nothing)
    assert store.get("k").frame == frame


async def test_the_longest_frame_fits(store):
    third = 1 / 3 * 1e-300
    frame = Frame((2**40, 2**40), (third, third), (-third,) * 6, "ABCDEFGH_IJKLMNO")
    said = Subject("f" * 64, f"{'a' * 32}.{'b' * 32}", "t" * 1000, "d" * 64, frame, (256, 256))
    await store.get_or_encode(said, nothing)
    assert store.get("f" * 64).frame == frame


async def test_the_slot_is_filled_by_the_encode_and_read_after_it(store):
    async def encode(slot):
        assert store.get("k") is None
        np.memmap(shm.ROOT / slot.region, np.uint8, "r+")[slot.offset :][: store.arena.slot_bytes] = 8

    made, _ = await store.get_or_encode(subject("k"), encode)
    assert (contents(store, made) == 8).all()
    assert (contents(store, store.get("k")) == 8).all()


async def test_the_least_recently_used_leaves(store):
    for key in "ab":
        await put(store, key)
    assert store.get("a") is not None
    await put(store, "c")
    assert [store.get(key) is not None for key in "abc"] == [True, False, True]
    assert store.arena.evictions == 1
    with pytest.raises(Fault) as raised:
        store.find("h.b", "t", "m")
    assert raised.value.kind is Kind.UNKNOWN_HANDLE


async def test_when_every_slot_is_in_use_the_pool_is_full(store):
    held = [(await put(store, key))[0] for key in "ab"]
    with pytest.raises(Fault) as raised:
        await put(store, "c")
    assert (raised.value.kind, raised.value.retry_after_s) == (Kind.POOL_FULL, 1.0)
    assert (await put(store, "a"))[1] == "hit"
    held.pop()
    assert (await put(store, "c"))[1] == "miss"


async def test_the_pool_is_full_of_encodes_too(store):
    gate = Gate()
    waiting = [asyncio.create_task(store.get_or_encode(subject(key), gate.encode)) for key in "ab"]
    await turns()
    assert await kind_of(put(store, "c")) is Kind.POOL_FULL
    gate.open.set()
    await asyncio.gather(*waiting)
    waiting.clear()
    await turns()
    assert (await put(store, "c"))[1] == "miss"


@pytest.mark.parametrize(
    ("handle", "tenant", "digest"),
    [("h.x", "t", "m"), ("h.k", "other", "m"), ("h.k", "t", "other"), ("h.k", "tm", ""), ("h.k", "", "tm"), ("", "t", "m")],
)
async def test_a_handle_is_good_for_its_tenant_and_model_only(store, handle, tenant, digest):
    await put(store, "k")
    for ask in (store.find, store.forget):
        with pytest.raises(Fault) as raised:
            ask(handle, tenant, digest)
        assert (raised.value.kind, raised.value.param) == (Kind.UNKNOWN_HANDLE, "image_id")
        assert "send the image again" in raised.value.message
    assert store.find("h.k", "t", "m").handle == "h.k"


@pytest.mark.parametrize("handle", ["x" * 10_000, "h.k\0\0", "é", "\0"])
async def test_any_text_may_be_asked_for(store, handle):
    await put(store, "k")
    with pytest.raises(Fault) as raised:
        store.find(handle, "someone", "m")
    assert raised.value.kind is Kind.UNKNOWN_HANDLE


async def test_no_tenant_s_name_lies_in_shared_memory(store):
    await put(store, "k", tenant="Mercy-General-Hospital", digest="digest-of-the-weights")
    content = (shm.ROOT / store.arena.region).read_bytes()
    assert b"h.k" in content
    assert b"Mercy" not in content
    assert b"digest-of" not in content


async def test_forgotten_is_forgotten(store):
    await put(store, "k")
    assert store.forget("h.k", "t", "m").frame == FRAME
    assert store.get("k") is None
    for ask in (store.find, store.forget):
        with pytest.raises(Fault):
            ask("h.k", "t", "m")
    assert store.arena.used_bytes() == 0


async def test_what_is_forgotten_while_a_decode_holds_it_stays_whole(store):
    held, _ = await put(store, "k")
    contents(store, held)[:] = 5
    store.forget("h.k", "t", "m")
    assert (await put(store, "k"))[1] == "miss"
    assert await kind_of(asyncio.gather(*(store.get_or_encode(subject(key), Gate().encode) for key in "ab"))) is Kind.POOL_FULL
    assert (contents(store, held) == 5).all()
    del held
    await turns()
    assert (await put(store, "c"))[1] == "miss"


async def test_misses_at_the_same_time_make_one_encode(store):
    gate = Gate()
    waiting = [asyncio.create_task(store.get_or_encode(subject("k"), gate.encode)) for _ in range(5)]
    await turns()
    gate.open.set()
    found = await asyncio.gather(*waiting)
    assert gate.begun == 1
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
    assert (gate.begun, gate.cancelled) == (1, 0)
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
    assert (gate.begun, gate.cancelled) == (1, 1)
    assert store.get("k") is not None


async def test_a_failure_goes_to_those_who_waited_and_is_not_kept(store):
    gate = Gate(failure=Fault(Kind.ENGINE_FAILED, "no"))
    waiting = [asyncio.create_task(store.get_or_encode(subject("k"), gate.encode)) for _ in range(3)]
    await turns()
    gate.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [getattr(fault, "kind", None) for fault in found] == [Kind.ENGINE_FAILED] * 3
    assert gate.begun == 1
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
    assert (short.begun, patient.begun) == (1, 1)


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


# Two replicas on one node


@contextmanager
def replicas():
    with small_arena() as arena:
        second = Arena(arena.region)
        yield FeaturesStore(arena, 60), FeaturesStore(second, 60)
        second.close()


async def test_two_replicas_encode_an_image_once():
    with replicas() as (one, other):
        gate = Gate()
        first = asyncio.create_task(one.get_or_encode(subject("k"), gate.encode))
        await turns()
        waiting = [asyncio.create_task(other.get_or_encode(subject("k"), Gate().encode)) for _ in range(3)]
        await turns()
        gate.open.set()
        assert (await first)[1] == "miss"
        assert [outcome for _, outcome in await asyncio.wait_for(asyncio.gather(*waiting), 30)] == ["coalesced"] * 3
        assert other.find("h.k", "t", "m").frame == FRAME
        assert (await put(other, "k"))[1] == "hit"


async def test_all_who_wait_for_another_replica_share_one_look_out_and_newcomers_join_them(monkeypatch):
    with replicas() as (one, other):
        gate, looking = Gate(), set()

        def filling(key):
            looking.add(asyncio.current_task())
            return Arena.filling(other.arena, key)

        monkeypatch.setattr(other.arena, "filling", filling)
        first = asyncio.create_task(one.get_or_encode(subject("k"), gate.encode))
        await turns()
        waiting = [asyncio.create_task(other.get_or_encode(subject("k"), Gate().encode)) for _ in range(5)]
        await turns()
        newcomer = asyncio.create_task(other.join("k"))
        await asyncio.sleep(3 * POLL_S)
        gate.open.set()
        assert (await first)[1] == "miss"
        assert {outcome for _, outcome in await asyncio.wait_for(asyncio.gather(*waiting), 30)} == {"coalesced"}
        assert (await newcomer).handle == "h.k"
        assert len(looking) == 1


async def test_who_joins_the_wait_for_another_replica_is_told_nothing_where_it_fails():
    with replicas() as (one, other):
        gate = Gate(failure=Fault(Kind.ENGINE_FAILED, "no"))
        first = asyncio.create_task(one.get_or_encode(subject("k"), gate.encode))
        await turns()
        second = asyncio.create_task(put(other, "k"))
        await turns()
        joined = asyncio.create_task(other.join("k"))
        await turns()
        gate.open.set()
        assert await kind_of(first) is Kind.ENGINE_FAILED
        assert await asyncio.wait_for(joined, 30) is None
        assert (await asyncio.wait_for(second, 30))[1] == "miss"


async def test_what_one_replica_fails_to_encode_another_does():
    with replicas() as (one, other):
        gate = Gate(failure=Fault(Kind.ENGINE_FAILED, "no"))
        first = asyncio.create_task(one.get_or_encode(subject("k"), gate.encode))
        await turns()
        second = asyncio.create_task(put(other, "k"))
        await turns()
        gate.open.set()
        assert await kind_of(first) is Kind.ENGINE_FAILED
        assert (await asyncio.wait_for(second, 30))[1] == "miss"


async def test_who_waits_for_another_replica_may_leave():
    with replicas() as (one, other):
        gate = Gate()
        first = asyncio.create_task(one.get_or_encode(subject("k"), gate.encode))
        await turns()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(put(other, "k"), 0.05)
        gate.open.set()
        assert (await first)[1] == "miss"


# Who comes while an encode is under way, and needs no image of their own


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
    assert (gate.begun, gate.cancelled) == (1, 0)


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
