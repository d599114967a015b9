"""An arena of two slots, its clock, and another process that has opened it."""

import pytest
from arenas import Clock, Other, small_arena

from serving import slots


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
