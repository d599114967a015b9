import asyncio

import numpy as np
import pytest

from serving.domain.image import Frame
from serving.embeddings.store import Features, FeaturesStore
from serving.errors import Fault, Kind

FLOAT_BYTES = 4


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def features(key, floats=1, tenant="t", digest="m"):
    return Features(key, f"h.{key}", tenant, digest, np.zeros(floats, np.float32), Frame((4, 4)), (4, 4))


async def give(value):
    return value


async def put(store, key, floats=1):
    return await store.get_or_encode(key, lambda: give(features(key, floats)))


class Gate:
    """An encode that waits until it is let go, and tells how often it began, ended and was cancelled."""

    def __init__(self, key="k", failure=None):
        self.key, self.failure = key, failure
        self.begun = self.cancelled = 0
        self.open = asyncio.Event()

    async def encode(self):
        self.begun += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return features(self.key)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_first_a_miss_then_hits():
    store = FeaturesStore(1000, 60)
    made, outcome = await put(store, "k", 3)
    assert outcome == "miss"
    again, outcome = await store.get_or_encode("k", lambda: give(features("other")))
    assert (again is made, outcome) == (True, "hit")
    assert store.get("k") is made
    assert store.get("absent") is None
    stats = store.stats
    assert (stats.bytes, stats.entries, stats.hits, stats.misses, stats.coalesced) == (12, 1, 2, 1, 0)


async def test_the_budget_is_bytes_and_the_least_recently_used_leaves():
    store = FeaturesStore(10 * FLOAT_BYTES, 60)
    for key, floats in (("a", 4), ("b", 4)):
        await put(store, key, floats)
    assert store.get("a") is not None
    await put(store, "c", 3)
    assert [store.get(key) is not None for key in "abc"] == [True, False, True]
    assert (store.stats.bytes, store.stats.entries, store.stats.evictions) == (28, 2, 1)
    await put(store, "d", 10)
    assert [store.get(key) is not None for key in "acd"] == [False, False, True]
    assert store.stats.evictions == 3


async def test_what_left_is_reported_once():
    clock = Clock()
    store = FeaturesStore(1 * FLOAT_BYTES, 60, clock)
    for key in "abc":
        await put(store, key)
    assert [store.stats.take_evictions(), store.stats.take_evictions()] == [2, 0]
    clock.now_s += 61
    assert [store.stats.take_evictions(), store.stats.take_evictions()] == [1, 0]


async def test_dropping_is_no_eviction_and_gives_its_room_back():
    store = FeaturesStore(3 * FLOAT_BYTES, 60)
    await put(store, "a", 3)
    store.drop("a")
    await put(store, "b", 3)
    assert (store.stats.bytes, store.stats.entries, store.stats.take_evictions()) == (12, 1, 0)


async def test_an_evicted_handle_is_unknown():
    store = FeaturesStore(1 * FLOAT_BYTES, 60)
    await put(store, "a")
    await put(store, "b")
    assert store.find("h.b", "t", "m").key == "b"
    with pytest.raises(Fault):
        store.find("h.a", "t", "m")


async def test_features_above_the_budget_are_given_and_not_kept():
    store = FeaturesStore(2 * FLOAT_BYTES, 60)
    await put(store, "small")
    made, outcome = await put(store, "big", 3)
    assert (made.nbytes, outcome) == (12, "miss")
    assert store.get("big") is None
    assert store.get("small") is not None


async def test_time_to_live_counts_from_the_last_use():
    clock = Clock()
    store = FeaturesStore(1000, 60, clock)
    await put(store, "used")
    await put(store, "idle")
    clock.now_s += 59
    assert store.get("used") is not None
    clock.now_s += 1
    assert store.get("idle") is None
    assert store.find("h.used", "t", "m").key == "used"
    clock.now_s += 60
    assert store.get("used") is None
    assert (store.stats.entries, store.stats.bytes, store.stats.expirations, store.stats.evictions) == (0, 0, 2, 0)


@pytest.mark.parametrize(("handle", "tenant", "digest"), [("h.x", "t", "m"), ("h.k", "other", "m"), ("h.k", "t", "other")])
async def test_a_handle_is_good_for_its_tenant_and_model_only(handle, tenant, digest):
    store = FeaturesStore(1000, 60)
    made, _ = await put(store, "k")
    for ask in (store.find, store.forget):
        with pytest.raises(Fault) as raised:
            ask(handle, tenant, digest)
        assert (raised.value.kind, raised.value.param) == (Kind.UNKNOWN_HANDLE, "image_id")
        assert "send the image again" in raised.value.message
    assert store.find("h.k", "t", "m") is made


async def test_forgotten_is_forgotten():
    store = FeaturesStore(1000, 60)
    made, _ = await put(store, "k")
    assert store.forget("h.k", "t", "m") is made
    assert store.get("k") is None
    with pytest.raises(Fault):
        store.forget("h.k", "t", "m")
    store.drop("k")
    assert store.stats.bytes == 0


async def test_misses_at_the_same_time_make_one_encode():
    store, gate = FeaturesStore(1000, 60), Gate()
    waiting = [asyncio.create_task(store.get_or_encode("k", gate.encode)) for _ in range(5)]
    await turns()
    gate.open.set()
    found = await asyncio.gather(*waiting)
    assert gate.begun == 1
    assert [outcome for _, outcome in found] == ["miss"] + ["coalesced"] * 4
    assert len({id(made) for made, _ in found}) == 1
    assert (store.stats.misses, store.stats.coalesced) == (1, 4)


async def test_different_keys_do_not_wait_for_each_other():
    store, gate = FeaturesStore(1000, 60), Gate("slow")
    slow = asyncio.create_task(store.get_or_encode("slow", gate.encode))
    await turns()
    assert (await put(store, "fast"))[1] == "miss"
    gate.open.set()
    await slow


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_one_client_leaving_does_not_hurt_the_others(leaver):
    store, gate = FeaturesStore(1000, 60), Gate()
    waiting = [asyncio.create_task(store.get_or_encode("k", gate.encode)) for _ in range(3)]
    await turns()
    waiting[leaver].cancel()
    await turns()
    gate.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[leaver], asyncio.CancelledError)
    assert all(found[index][0].key == "k" for index in range(3) if index != leaver)
    assert (gate.begun, gate.cancelled) == (1, 0)
    assert store.get("k") is not None


async def test_when_all_have_left_the_encode_is_cancelled_and_a_newcomer_starts_afresh():
    store, gate = FeaturesStore(1000, 60), Gate()
    waiting = [asyncio.create_task(store.get_or_encode("k", gate.encode)) for _ in range(2)]
    await turns()
    for task in waiting:
        task.cancel()
    await turns(1)
    newcomer = asyncio.create_task(put(store, "k"))
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await newcomer)[1] == "miss"
    await turns()
    assert (gate.begun, gate.cancelled) == (1, 1)
    assert store.get("k") is not None


async def test_a_failure_goes_to_those_who_waited_and_is_not_kept():
    store, gate = FeaturesStore(1000, 60), Gate(failure=Fault(Kind.ENGINE_FAILED, "no"))
    waiting = [asyncio.create_task(store.get_or_encode("k", gate.encode)) for _ in range(3)]
    await turns()
    gate.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [getattr(fault, "kind", None) for fault in found] == [Kind.ENGINE_FAILED] * 3
    assert gate.begun == 1
    assert (await put(store, "k"))[1] == "miss"


async def test_the_deadline_of_the_first_is_not_the_deadline_of_the_others():
    store, short = FeaturesStore(1000, 60), Gate(failure=Fault(Kind.DEADLINE, "too late"))
    patient = Gate()
    patient.open.set()
    first = asyncio.create_task(store.get_or_encode("k", short.encode))
    await turns()
    others = [asyncio.create_task(store.get_or_encode("k", patient.encode)) for _ in range(3)]
    await turns()
    short.open.set()
    with pytest.raises(Fault) as raised:
        await first
    assert raised.value.kind is Kind.DEADLINE
    assert [made.key for made, _ in await asyncio.gather(*others)] == ["k"] * 3
    assert (short.begun, patient.begun) == (1, 1)


async def test_a_failure_nobody_waits_for_is_not_reported_as_lost(caplog):
    store, gate = FeaturesStore(1000, 60), Gate(failure=ValueError("x"))
    waiting = asyncio.create_task(store.get_or_encode("k", gate.encode))
    await turns()
    gate.open.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await turns()
    assert caplog.records == []
