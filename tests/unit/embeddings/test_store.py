"""The Features store of one replica, over a small real arena: what is held, for whom, for how long."""

import asyncio

import numpy as np
import pytest

from serving import shm
from serving.domain.image import Frame
from serving.embeddings.store import Subject
from serving.errors import Fault, Kind
from tests.unit.embeddings.encoding import FRAME, Gate, contents, kind_of, nothing, put, subject, turns


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
