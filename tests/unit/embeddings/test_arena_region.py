"""The arena's file: how large, whose, refused where it cannot be, and what is no arena."""

import struct
from types import SimpleNamespace

import pytest
from arenas import SLOT_BYTES, small_arena

from serving import shm, slots
from serving.embeddings.arena import Arena, create
from serving.errors import SetupError


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
