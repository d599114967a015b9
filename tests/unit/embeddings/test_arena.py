import gc

import numpy as np
import pytest

from serving import shm
from serving.embeddings.arena import SLOT_BYTES, Arena


@pytest.fixture
def arena():
    made = Arena(f"test_{id(object())}", 2)
    yield made
    made.close()


def features(value):
    return np.full((1, 256, 64, 64), value, np.float32)


def test_an_array_moves_into_the_region_as_it_is(arena):
    placed = arena.place(features(3))
    assert np.array_equal(placed, features(3))
    offset = arena.locate(placed)
    assert offset % SLOT_BYTES == 0
    region = np.fromfile(shm.ROOT / arena.region, np.float32)
    assert (region[offset // 4 : (offset + SLOT_BYTES) // 4] == 3).all()


def test_a_slot_is_used_anew_only_when_nobody_holds_its_array(arena):
    first, second = arena.place(features(1)), arena.place(features(2))
    assert arena.free == 0
    third = arena.place(features(3))
    assert arena.locate(third) is None
    held, offset = first, arena.locate(first)
    del first
    gc.collect()
    assert arena.free == 0
    assert (held == 1).all()
    del held
    assert arena.free == 1
    assert arena.locate(arena.place(features(4))) == offset
    assert (second == 2).all()


def test_what_is_too_large_or_elsewhere_is_not_located(arena):
    large = np.zeros(SLOT_BYTES + 1, np.uint8)
    assert arena.place(large) is large
    assert arena.locate(large) is None
    assert arena.locate(features(1)) is None
    assert arena.locate(arena.place(features(1)).transpose(0, 3, 2, 1)) is None
    assert arena.free == 2


def test_the_region_is_this_process_s_and_goes_with_it(arena):
    assert arena.region.startswith(shm.prefix())
    assert not shm.owner_is_gone(arena.region)
    assert shm.owner_is_gone(arena.region.replace(shm.prefix(), "medserve_1_1_"))
    arena.close()
    assert not (shm.ROOT / arena.region).exists()
