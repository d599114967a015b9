"""Who lies in which slot, told from this process and from others that come, work and are killed."""

import contextlib
import gc
import json
import random
import signal
import struct
import subprocess
import sys
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
from arenas import SLOT_BYTES, small_arena
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving import shm, slots
from serving.embeddings.arena import Arena, create
from serving.errors import SetupError
from serving.slots import FORGOTTEN, FREE, READY, RESERVED, Slots, Stale


@pytest.fixture
def arena():
    with small_arena() as made:
        yield made


class Clock:
    """The machine's monotonic clock, put forward by hand."""

    def __init__(self):
        self.now = slots.now_ns()

    def __call__(self):
        self.now += 1
        return self.now

    def forward(self, seconds):
        self.now += int(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(slots, "now_ns", made)
    return made


def put(arena, key, fill=0):
    """Features of a key, committed and let go."""
    slot = arena.claim(key)
    assert not isinstance(slot, str), slot
    contents(arena, slot)[:] = fill
    arena.commit(slot, f"h.{key}", json.dumps({"of": key}).encode())


def contents(arena, slot):
    """The slot's bytes, by its offset in the file as Triton sees it."""
    at = slot.offset
    return np.memmap(shm.ROOT / slot.region, np.uint8, "r+")[at : at + arena.slot_bytes]


def held(arena, *keys):
    """Which of the keys are held. Looking is a use."""
    return [key for key in keys if arena.get(key) is not None]


# One process


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


@pytest.mark.parametrize("budget", [1, SLOT_BYTES - 1])
def test_a_budget_too_small_for_one_image_is_a_set_up_error(budget):
    before = set(shm.ROOT.glob(f"{shm.prefix()}*"))
    with pytest.raises(SetupError, match=rf"features\.budget_bytes must be at least {SLOT_BYTES}"):
        create("small", budget, SLOT_BYTES)
    assert set(shm.ROOT.glob(f"{shm.prefix()}*")) == before


def test_shared_memory_that_cannot_hold_the_budget_is_a_set_up_error_and_leaves_no_file(monkeypatch):
    """The file is sparse: without this the first image that finds no memory would end in SIGBUS."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3 << 20))
    with pytest.raises(SetupError, match=r"/dev/shm has 3 MiB free and Features need 40"):
        create("tight", 40 << 20, 1 << 20)
    assert not list(shm.ROOT.glob(f"{shm.prefix()}tight*"))


def test_the_budget_is_not_exceeded():
    with small_arena(budget_bytes=4 * SLOT_BYTES - 1) as arena:
        assert arena.count == 3
    with small_arena(budget_bytes=SLOT_BYTES) as arena:
        assert arena.count == 1


def test_the_region_is_this_process_s_and_only_its_owner_may_read_it(arena):
    assert arena.region.startswith(shm.prefix())
    assert not shm.owner_is_gone(arena.region)
    assert shm.owner_is_gone(arena.region.replace(shm.prefix(), "medserve_1_1_"))
    assert (shm.ROOT / arena.region).stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        create(arena.region.removeprefix(shm.prefix()), SLOT_BYTES, SLOT_BYTES)


@pytest.mark.parametrize("content", [None, b"", b"x" * 8192, struct.pack("<8sQQQ", b"MEDSLOT0", 1, 4096, 4096) + bytes(9000)])
def test_what_is_no_arena_is_said(content):
    name = f"{shm.prefix()}no_arena"
    try:
        if content is not None:
            (shm.ROOT / name).write_bytes(content)
        with pytest.raises(SetupError, match="is its Triton started"):
            Arena(name)
    finally:
        shm.remove(name)


def test_a_closed_opening_keeps_no_lock_and_hurts_nobody_s():
    with small_arena() as arena:
        first = Arena(arena.region)
        put(first, "a")
        pins = [first.get("a")[0], first.claim("b")]
        assert arena.claim("c") == "full"
        first.close()
        mine = arena.claim("c"), arena.claim("d")
        assert not any(isinstance(each, str) for each in mine)
        second = Arena(arena.region)  # may be given the closed one's descriptor
        del pins, mine
        kept = second.claim("e"), second.claim("f")
        gc.collect()
        assert arena.claim("g") == "full"
        del kept
        second.close()


# Several processes

CHILD = """
import os, sys
from serving.embeddings.arena import Arena
from serving.slots import Slots, Stale
arena, kept = Arena(sys.argv[1]), []
print("open", flush=True)
for line in sys.stdin:
    word, *given = line.split()
    if word == "put":
        slot = arena.claim(given[0])
        arena._slots.view(slot.index)[:] = int(given[1])
        arena.commit(slot, "h." + given[0], b"from another process")
        del slot
        found = "done"
    elif word in ("claim", "get"):
        found = getattr(arena, word)(given[0])
        kept.append(found)
        found = found if isinstance(found, str) else "none" if found is None else "slot"
    elif word == "commit":
        arena.commit(kept[-1], "h." + given[0], b"from another process")
        found = "done"
    elif word == "hold":
        pins = Slots(sys.argv[1])
        kept.append(pins)
        pins.pin(int(given[0]), int(given[1]), 2)
        found = "done"
    elif word == "lock":
        block = arena._slots.locked()
        block.__enter__()
        found = "done"
    elif word == "let":
        kept.clear()
        found = "done"
    print(found, flush=True)
"""


class Other:
    """Another process with its own opening of the arena."""

    def __init__(self, region):
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, region], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "open\n"

    def __call__(self, *words):
        print(*words, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


@pytest.fixture
def other(arena):
    made = Other(arena.region)
    yield made
    made.kill()


def test_processes_see_each_other_s_features(arena, other):
    assert other("put", "a", 4) == "done"
    slot, said = arena.get("a")
    assert said == b"from another process"
    assert (contents(arena, slot) == 4).all()
    put(arena, "b")
    assert other("get", "b") == "slot"
    arena.drop(slot)
    assert other("get", "a") == "none"


def test_a_claim_elsewhere_is_told_and_then_a_hit(arena, other):
    assert other("claim", "a") == "slot"
    assert arena.get("a") is None
    assert arena.claim("a") == "elsewhere"
    assert other("commit", "a") == "done"
    assert arena.claim("a") == "elsewhere"
    assert arena.get("a") is not None


def test_a_reservation_given_up_elsewhere_can_be_made_here(arena, other):
    assert other("claim", "a") == "slot"
    assert arena.claim("a") == "elsewhere"
    assert other("let") == "done"
    assert not isinstance(arena.claim("a"), str)


def test_what_another_process_pins_is_not_given_away(arena, other, clock):
    put(arena, "a", 1)
    put(arena, "b", 2)
    assert other("get", "a") == "slot"
    put(arena, "c")
    assert held(arena, "a", "b", "c") == ["a", "c"]
    mine = arena.get("c")[0]
    assert arena.claim("d") == "full"
    assert other("let") == "done"
    slot = arena.claim("d")
    assert slot.index != mine.index


@pytest.mark.parametrize("words", [("get", "a"), ("claim", "b"), ("hold", 0, 1)], ids=["features", "reservation", "backend"])
def test_a_killed_process_leaves_nothing_pinned(arena, other, words):
    put(arena, "a")
    here = arena.get("a") if words[0] == "claim" else arena.claim("x")
    assert other(*words) in ("slot", "done")
    assert arena.claim("y") == "full"
    other.kill()
    assert arena.claim("y") != "full"
    del here


def test_a_killed_process_s_key_can_be_claimed_and_its_half_written_slot_is_not_found(arena, other):
    assert other("claim", "a") == "slot"
    other.kill()
    assert arena.get("a") is None
    slot = arena.claim("a")
    arena.commit(slot, "h.a", b"")
    assert arena.get("a")[0].index == slot.index
    assert not isinstance(arena.claim("b"), str)


def test_a_process_killed_at_the_table_does_not_lock_it(arena, other):
    assert other("lock") == "done"
    other.kill()
    put(arena, "a")
    assert held(arena, "a") == ["a"]


def test_a_successor_finds_what_its_predecessor_encoded(arena, other):
    assert other("put", "a", 6) == "done"
    other.kill()
    successor = Other(arena.region)
    assert successor("get", "a") == "slot"
    successor.kill()
    assert (contents(arena, arena.get("a")[0]) == 6).all()


WRITER = """
import random, sys, time
import numpy as np
from serving.embeddings.arena import Arena
from serving.slots import Slots, READY, Stale
arena, reader, rng = Arena(sys.argv[1]), Slots(sys.argv[1]), random.Random(int(sys.argv[2]))
wrong = done = 0
for _ in range(1500):
    key = rng.randrange(6)
    found = arena.get(str(key))
    if found is None:
        slot = arena.claim(str(key))
        if isinstance(slot, str):
            continue
        place = arena._slots.view(slot.index)
        for start in range(0, 4096, 1024):
            place[start : start + 1024] = key
        if rng.random() < 0.1:
            del slot
            continue
        arena.commit(slot, f"h.{key}", str(key).encode())
        found = slot, str(key).encode()
        del slot
    slot, said = found
    with reader.holding(slot.index, slot.generation, READY) as place:
        if rng.random() < 0.1:
            arena.drop(slot)
        wrong += said != str(key).encode() or not (place == key).all()
        done += 1
    del slot, found
print(wrong, done)
"""


def test_nobody_ever_reads_another_image_s_features():
    with small_arena(slots=4) as arena:
        command = [sys.executable, "-c", WRITER, arena.region]
        workers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)]
        found = [tuple(map(int, worker.communicate()[0].split())) for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0, 0]
        assert all(wrong == 0 and done > 100 for wrong, done in found)
        assert {arena.claim(f"free {n}") == "full" for n in range(4)} == {False}


# Against a model


class AgainstADict(RuleBasedStateMachine):
    """Two openings of one arena of three slots, against an ordered dict (oldest use first) and a list of pins."""

    keys = st.sampled_from("abcde")
    openings = st.sampled_from([0, 1])

    @initialize()
    def open(self):
        self.stack = contextlib.ExitStack()
        first = self.stack.enter_context(small_arena(slots=3))
        self.arenas = first, Arena(first.region)
        self.stack.callback(self.arenas[1].close)
        self.ready, self.pins, self.reserved, self.names = OrderedDict(), [], [], []

    def teardown(self):
        self.pins, self.reserved = [], []
        if hasattr(self, "stack"):
            self.stack.close()

    def taken(self):
        """Slots that cannot be given away."""
        return {slot.index for slot, _ in self.pins} | {slot.index for slot, _ in self.reserved}

    @rule(which=openings, key=keys)
    def get(self, which, key):
        found = self.arenas[which].get(key)
        assert (found is not None) == (key in self.ready)
        if found is not None:
            slot, said = found
            assert (slot.index, slot.generation) == self.ready[key]
            assert said == key.encode()
            self.ready.move_to_end(key)

    @rule(which=openings, key=keys)
    @precondition(lambda self: self.ready)
    def pin(self, which, key):
        found = self.arenas[which].get(key)
        if found is not None:
            self.ready.move_to_end(key)
            self.pins.append((found[0], key))

    @rule(which=openings, key=keys)
    def claim(self, which, key):
        slot = self.arenas[which].claim(key)
        if key in self.ready or any(key == its for _, its in self.reserved):
            assert slot == "elsewhere"
        elif len(self.taken()) == 3:
            assert slot == "full"
        else:
            assert slot.index not in self.taken()
            place = {index: its for its, (index, _) in self.ready.items()}
            if slot.index in place:
                assert len(set(place) | self.taken()) == 3, "a free slot was passed over"
                movable = [its for its, (index, _) in self.ready.items() if index not in self.taken()]
                assert place[slot.index] == movable[0], "not the least recently used"
                del self.ready[place[slot.index]]
            self.reserved.append((slot, key))
        del slot

    @rule(which=openings, number=st.integers(0, 9))
    @precondition(lambda self: self.reserved)
    def commit(self, which, number):
        slot, key = self.reserved.pop(number % len(self.reserved))
        self.arenas[which].commit(slot, f"h.{key}", key.encode())
        self.ready[key] = slot.index, slot.generation
        self.names.append((slot.index, slot.generation))

    @rule(number=st.integers(0, 9))
    @precondition(lambda self: self.reserved)
    def give_up(self, number):
        self.reserved.pop(number % len(self.reserved))

    @rule(number=st.integers(0, 9))
    @precondition(lambda self: self.pins)
    def unpin(self, number):
        self.pins.pop(number % len(self.pins))

    @rule(which=openings, number=st.integers(0, 9))
    @precondition(lambda self: self.pins)
    def drop(self, which, number):
        slot, key = self.pins[number % len(self.pins)]
        self.arenas[which].drop(slot)
        if self.ready.get(key) == (slot.index, slot.generation):
            del self.ready[key]

    @invariant()
    def the_table_agrees(self):
        if hasattr(self, "arenas"):
            assert self.arenas[0].used_bytes() == self.arenas[1].used_bytes() == len(self.ready) * SLOT_BYTES

    @invariant()
    def what_is_pinned_or_held_can_be_read(self):
        if hasattr(self, "arenas"):
            reader = Slots(self.arenas[0].region)
            for index, generation in [*self.ready.values(), *((s.index, s.generation) for s, _ in self.pins)]:
                with reader.holding(index, generation, READY):
                    pass
            reader.close()


TestAgainstADict = AgainstADict.TestCase


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


def test_a_named_arena_takes_its_predecessor_s_place():
    name = f"{shm.prefix()}named"
    try:
        for budget in (2 * slots.PAGE, 4 * slots.PAGE):
            assert create("features", budget, slots.PAGE, name=name) == name
        opened = Arena(name)
        assert opened.count == 4
        opened.close()
    finally:
        shm.remove(name)
