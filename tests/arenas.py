"""Small real arenas for the tests, each removed from /dev/shm when its test is done; and another process that opens one."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np

from serving import shm, slots
from serving.embeddings import arena

SLOT_BYTES = 4096


@contextmanager
def small_arena(slots=2, slot_bytes=SLOT_BYTES, ttl_s=60.0, budget_bytes=0):
    """An opening of a new arena of that many slots, or of as many as a budget holds."""
    region = arena.create(f"test_{os.urandom(4).hex()}", budget_bytes or slots * slot_bytes, slot_bytes)
    opened = arena.Arena(region, ttl_s)
    try:
        yield opened
    finally:
        opened.close()
        shm.remove(opened.region)


class Clock:
    """The machine's monotonic clock, put forward by hand."""

    def __init__(self):
        self.now = slots.now_ns()

    def __call__(self):
        self.now += 1
        return self.now

    def forward(self, seconds):
        self.now += int(seconds * 1e9)


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
