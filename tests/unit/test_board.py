"""Two processes' views of one board: rows of the same door, rows whose owner is gone, engines' clocks."""

import errno
import multiprocessing
import subprocess
import sys

import pytest

from serving import board as boards
from serving import shm
from serving.board import Board, Told
from serving.errors import SetupError


def told(at_s, seconds=0.5):
    left_s, counts = ((seconds, 0.0), (0.0, 2.0), (0.0, 0.0)), ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
    return Told(at_s, left_s, counts, (0.5, 1.0, 1.0), (1.5, 0.0, 0.0))


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(shm, "ROOT", tmp_path)
    return tmp_path


def test_each_sees_what_the_other_told_last_and_not_its_own():
    mine, other = (Board("node").row("adaptive") for _ in range(2))
    mine.tell(told(100.0, 9.0))
    mine.tell(told(101.0))
    assert other.others(101.0) == [told(101.0)]
    assert mine.others(101.0) == []


def test_another_pool_is_no_neighbour():
    board = Board("node")
    adaptive, contrastive = board.row("adaptive"), board.row("contrastive")
    adaptive.tell(told(100.0))
    assert contrastive.others(100.0) == []


def test_what_was_told_long_ago_means_nothing():
    mine, other = (Board("node").row("adaptive") for _ in range(2))
    mine.tell(told(100.0))
    assert other.others(100.0 + boards.OLD_S - 1)
    assert other.others(100.0 + boards.OLD_S + 1) == []


def test_the_row_of_a_process_that_is_gone_is_given_away(root):
    script = "import sys; from pathlib import Path; from serving import shm, board; shm.ROOT = Path(sys.argv[1])\n"
    script += f"board.Board('node').row('adaptive').tell({told(100.0)!r})".replace("Told(", "board.Told(")
    subprocess.run([sys.executable, "-c", script, str(root)], check=True)
    board = Board("node")
    watcher = board.row("adaptive")
    assert watcher.others(100.0) == [], "its row went to the first that came"
    assert board.row("adaptive").others(100.0) == []


def test_a_full_board_leaves_the_rest_alone(monkeypatch):
    board = Board("node")
    rows = [board.row("adaptive") for _ in range(boards.ROWS)]
    assert None not in rows
    assert board.row("adaptive") is None


def _note(root, done_s):
    shm.ROOT = root
    Board("node").clock("litemedsam_mask_decoder/1").done_s = done_s


def test_an_engine_has_one_clock_for_all_processes(root):
    clock = Board("node").clock("litemedsam_mask_decoder/1")
    assert clock.done_s == 0.0
    process = multiprocessing.get_context("spawn").Process(target=_note, args=(root, 12.5))
    process.start()
    process.join()
    assert clock.done_s == 12.5
    assert Board("node").clock("litemedsam_image_encoder/1").done_s == 0.0


def test_the_board_goes_with_its_arena(root):
    Board(f"{shm.prefix()}features")
    assert [path.name for path in root.iterdir()] == [f"{shm.prefix()}features_board"]
    shm.remove(f"{shm.prefix()}features", root)
    assert list(root.iterdir()) == []


def test_a_full_shared_memory_is_said(monkeypatch):
    def full(*of):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(boards.os, "posix_fallocate", full)
    with pytest.raises(SetupError, match=r"no board .* No space left"):
        Board("node")
