"""Who lies in which slot, told within one process."""

import random

import pytest
from arenas import SLOT_BYTES, contents, held, put, small_arena

from serving import shm, slots
from serving.slots import FORGOTTEN, FREE, READY, RESERVED, Slots, Stale


def test_what_is_committed_is_found_by_key_and_by_handle(arena):
    assert arena.get("a") is None
    slot = arena.claim("a")
    assert (arena.get("a"), arena.find("h.a"), arena.used_bytes()) == (None, None, 0)
    arena.commit(slot, "h.a", b"said")
    for found in (arena.get("a"), arena.find("h.a")):
        place, said = found
        assert (place.index, place.generation, place.offset, said) == (slot.index, slot.generation, slot.offset, b"said")
    assert arena.find("a") is None
    assert arena.get("h.a") is None
    assert arena.find("") is None
    assert arena.used_bytes() == SLOT_BYTES


def test_slots_lie_in_the_file_on_pages_and_apart(arena):
    first, second = arena.claim("a"), arena.claim("b")
    assert {first.offset % slots.PAGE, second.offset % slots.PAGE} == {0}
    contents(arena, first)[:], contents(arena, second)[:] = 1, 2
    assert (contents(arena, first) == 1).all()
    assert max(first.offset, second.offset) + SLOT_BYTES == arena.nbytes == (shm.ROOT / arena.region).stat().st_size
    arena.commit(first, "h.a", b"")
    with Slots(arena.region).holding(first.index, first.generation, READY) as place:
        assert (place == 1).all()


def test_a_later_word_is_not_the_earlier_one_s_end(arena):
    put(arena, "a")
    slot = arena.claim("b")
    arena.commit(slot, "h.b", b"long" * 100)
    arena.drop(slot)
    del slot
    again = arena.claim("c")
    arena.commit(again, "h.c", b"short")
    assert arena.get("c")[1] == b"short"


def test_too_long_a_word_is_refused(arena):
    most = slots.RECORD["meta"].itemsize
    slot = arena.claim("a")
    with pytest.raises(ValueError, match="too much"):
        arena.commit(slot, "h.a", bytes(most + 1))
    assert arena.get("a") is None
    arena.commit(slot, "h.a", b"\1" * most)
    assert arena.get("a")[1] == b"\1" * most


def test_the_least_recently_used_leaves(arena, clock):
    put(arena, "a")
    put(arena, "b")
    assert held(arena, "a") == ["a"]
    put(arena, "c")
    assert held(arena, "b", "a", "c") == ["a", "c"]
    assert arena.find("h.a") is not None
    put(arena, "d")
    assert held(arena, "a", "c", "d") == ["a", "d"]
    assert arena.evictions == 2


def test_a_free_slot_goes_before_a_used_one(arena, clock):
    put(arena, "a")
    put(arena, "b")
    arena.drop(arena.get("b")[0])
    put(arena, "c")
    assert held(arena, "a", "b", "c") == ["a", "c"]
    assert arena.evictions == 0


def test_what_is_pinned_is_never_given_away(arena, clock):
    put(arena, "old", 7)
    pin = arena.get("old")[0]
    for key in "abcd":
        put(arena, key)
    assert held(arena, "old", "c", "d") == ["old", "d"]
    assert (contents(arena, pin) == 7).all()
    other = arena.get("d")[0]
    assert arena.claim("e") == "full"
    del other
    assert not isinstance(arena.claim("e"), str)


def test_pins_are_counted(arena):
    put(arena, "a")
    pins = [arena.get("a")[0] for _ in range(3)]
    room = arena.claim("b")
    for _ in range(3):
        assert arena.claim("c") == "full"
        pins.pop()
    assert arena.claim("c").index != room.index


def test_a_reservation_that_is_let_go_is_free_again(arena):
    slot, other = arena.claim("a"), arena.claim("b")
    assert arena.claim("a") == "elsewhere"
    assert arena.claim("c") == "full"
    generation = slot.generation
    del slot
    again = arena.claim("a")
    assert (again.index, again.generation) == (1 - other.index, generation + 1)
    assert arena.evictions == 0


def test_a_dropped_reservation_frees_its_key_at_once_and_its_room_when_it_is_let_go(arena):
    slot = arena.claim("a")
    arena.drop(slot)
    again = arena.claim("a")
    assert again.index != slot.index
    assert arena.claim("b") == "full"
    del slot
    assert not isinstance(arena.claim("b"), str)


def test_a_generation_makes_a_stale_name_noticed(arena):
    put(arena, "a", 1)
    slot = arena.get("a")[0]
    name = slot.index, slot.generation
    reader = Slots(arena.region)
    with reader.holding(*name, READY) as place:
        assert place[0] == 1
    del slot, place
    for key in "bc":
        put(arena, key, 2)
    with pytest.raises(Stale), reader.holding(*name, READY):
        pass
    assert not any(reader.pinned(index) for index in range(2))


@pytest.mark.parametrize("index", [-1, 2, 1 << 40])
def test_a_slot_that_is_not_there_is_stale(arena, index):
    with pytest.raises(Stale), Slots(arena.region).holding(index, 0, READY):
        pass


def test_a_slot_that_is_being_filled_is_written_and_never_read(arena):
    slot = arena.claim("a")
    other = Slots(arena.region)
    with other.holding(slot.index, slot.generation, RESERVED) as place:
        place[:] = 5
    with pytest.raises(Stale), other.holding(slot.index, slot.generation, READY):
        pass
    arena.commit(slot, "h.a", b"")
    with other.holding(slot.index, slot.generation, READY) as place:
        assert (place == 5).all()
    with pytest.raises(Stale), other.holding(slot.index, slot.generation, RESERVED):
        pass
    with pytest.raises(Stale), other.holding(1 - slot.index, 0, READY):
        pass


def test_who_holds_what_was_forgotten_works_on(arena):
    put(arena, "a", 9)
    slot = arena.get("a")[0]
    arena.drop(slot)
    arena.drop(slot)
    assert (arena.get("a"), arena.find("h.a"), arena.used_bytes()) == (None, None, 0)
    backend = Slots(arena.region)
    with backend.holding(slot.index, slot.generation, READY) as place:
        put(arena, "b")
        put(arena, "c")
        assert (place == 9).all()
    assert held(arena, "b", "c") == ["c"]


def test_only_the_slot_s_own_features_are_dropped(arena):
    put(arena, "a")
    old = arena.get("a")[0]
    stale = shm.Slot(old.region, old.index, old.generation - 1, old.offset)
    arena.drop(stale)
    assert held(arena, "a") == ["a"]


def test_time_to_live_counts_from_the_last_use(clock):
    with small_arena(slots=3, ttl_s=60) as arena:
        put(arena, "used")
        put(arena, "idle")
        clock.forward(59)
        assert held(arena, "used") == ["used"]
        clock.forward(2)
        assert arena.find("h.idle") is None
        assert held(arena, "used", "idle") == ["used"]
        clock.forward(61)
        assert arena.get("used") is None
        assert (arena.used_bytes(), arena.evictions) == (0, 2)


def test_what_ended_while_a_decode_works_on_it_is_whole_until_that_is_done(arena, clock):
    put(arena, "a", 3)
    slot = arena.get("a")[0]
    clock.forward(1000)
    assert arena.get("a") is None
    with Slots(arena.region).holding(slot.index, slot.generation, READY) as place:
        assert (place == 3).all()


def test_states_are_a_closed_set():
    assert sorted((FREE, RESERVED, READY, FORGOTTEN)) == list(range(4))


def test_tensors_lie_on_cache_lines_one_after_another():
    rng = random.Random(0)
    for _ in range(50):
        sizes = [rng.randrange(1, 1000) for _ in range(rng.randrange(1, 6))]
        *starts, end = slots.offsets(sizes)
        assert all(start % slots.ALIGN == 0 for start in starts)
        ends = [start + size for start, size in zip(starts, sizes, strict=True)]
        assert all(stop <= start for stop, start in zip(ends, [*starts[1:], end], strict=True))
        assert end - ends[-1] < slots.ALIGN
