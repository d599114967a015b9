"""Several processes share an arena, come, work and are killed."""

import gc
import subprocess
import sys

import pytest
from arenas import Other, contents, held, put, small_arena

from serving.embeddings.arena import Arena


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


# Processes that are killed


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


# All at once


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
