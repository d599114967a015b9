"""Small real arenas for the tests: each is removed from /dev/shm when its test is done."""

import os
from contextlib import contextmanager

from serving import shm
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
