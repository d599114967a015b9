"""A job's own Features: written and read in slots, kept within a budget, given back, waited for."""

import asyncio

import numpy as np
import pytest
from arenas import SLOT_BYTES, small_arena

from serving.domain.request import Deadline
from serving.embeddings.aside import Aside
from serving.errors import Fault, Kind
from serving.shm import Slot


@pytest.fixture
def arena():
    with small_arena(slots=2) as opened:
        yield opened


def filling(arena, number):
    async def encode(slot):
        arena.view(slot)[:] = number

    return encode


async def test_features_are_kept_while_there_is_room_and_encoded_again_beyond(arena):
    aside = Aside(arena, SLOT_BYTES)
    for number in (1, 2):
        slot = await aside.get(number, filling(arena, number), Deadline.after(10))
        aside.done(number, slot, again=True)
        del slot
    for number in (1, 2):
        slot = await aside.get(number, filling(arena, 9), Deadline.after(10))
        assert np.unique(arena.view(slot)) == [number if number == 1 else 9]
        aside.done(number, slot, again=False)
        del slot
    assert aside.encoded == 3
    assert arena.used_bytes() == 0


async def test_a_full_arena_is_waited_for_until_the_deadline(arena):
    aside = Aside(arena, 0)
    held = [arena.claim("a" * 64), arena.claim("b" * 64)]
    assert all(isinstance(each, Slot) for each in held)
    with pytest.raises(Fault) as caught:
        await aside.get(1, filling(arena, 1), Deadline.after(0.05))
    assert caught.value.kind is Kind.DEADLINE
    waiting = asyncio.create_task(aside.get(1, filling(arena, 1), Deadline.after(20)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    held.clear()
    assert isinstance(await waiting, Slot)


async def test_an_encode_that_fails_gives_its_slot_back(arena):
    async def failing(slot):
        raise Fault(Kind.ENGINE_FAILED, "no")

    aside = Aside(arena, 0)
    for _ in range(5):
        with pytest.raises(Fault):
            await aside.get(1, failing, Deadline.after(10))
    assert arena.used_bytes() == 0
