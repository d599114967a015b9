"""An arena of two slots, its clock, another process that has opened it, and a store over one."""

import gc

import pytest
from arenas import Clock, Other, small_arena

from serving import slots
from serving.embeddings.store import FeaturesStore


@pytest.fixture
def arena():
    with small_arena() as made:
        yield made


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(slots, "now_ns", made)
    return made


@pytest.fixture
def other(arena):
    made = Other(arena.region)
    yield made
    made.kill()


@pytest.fixture
def store():
    with small_arena() as arena:
        yield FeaturesStore(arena, 60)


@pytest.fixture
def no_collector():
    """What is let go must go at once, not when the collector of reference cycles comes by."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
