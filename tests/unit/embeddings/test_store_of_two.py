"""Two replicas of one node over one arena: an image is encoded once for both."""

import asyncio
from contextlib import contextmanager

import pytest
from arenas import small_arena

from serving.embeddings.arena import Arena
from serving.embeddings.store import POLL_S, FeaturesStore
from serving.errors import Fault, Kind
from tests.unit.embeddings.encoding import FRAME, Gate, kind_of, put, subject, turns


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
