"""Twice the load that a pool can carry, in simulated time: what is answered in time, and how long interactive work takes."""

import pytest

from serving import shm
from serving.board import Board
from serving.domain.request import Priority
from serving.router.admission import limits
from serving.router.gate import Gate
from serving.settings import PoolSettings
from tests.unit.router.simulation import IMAGE, PROMPT, Class, Doors, simulate, simulate_users

SECONDS, LONG_S = 60.0, 240.0
QUICK = PoolSettings(max_click_wait_s=0.04, max_bulk_wait_s=2)
CLICK = (PROMPT, Priority.INTERACTIVE, 0.012, 1.0)
BULK_CLICK = (PROMPT, Priority.BULK, 0.012, 5.0)
BULK_IMAGE = (IMAGE, Priority.BULK, 0.2, 5.0)
MIXES = {
    "clicks alone": [(1.0, CLICK)],
    "clicks over bulk clicks": [(0.5, CLICK), (0.5, BULK_CLICK)],
    "clicks over bulk images": [(0.875, CLICK), (0.125, BULK_IMAGE)],
}


def capacity(mix):
    """Requests a second that keep the engines just busy."""
    return 1 / sum(share * service_s for share, (_, _, service_s, _) in mix)


def classes(mix, load):
    return [Class(task, priority, share * load * capacity(mix), *rest) for share, (task, priority, *rest) in mix]


def run(mix, load, gate, **kwargs):
    """The outcome, and the 99th percentile of the clicks in seconds; their class is the first of the mix."""
    given = classes(mix, load)
    outcome = simulate(given, gate, **kwargs)
    return outcome, outcome.p99_s(given[0])


def gate():
    """Set for clicks that must stay quick even where they alone are too many, and from the first moment."""
    return Gate("adaptive", limits(QUICK, tenants=0))


def shipped():
    return Gate("adaptive", limits(PoolSettings(), tenants=0))


@pytest.fixture
def two_doors(tmp_path, monkeypatch):
    """Gates of two routers of one node."""
    monkeypatch.setattr(shm, "ROOT", tmp_path)

    def open_doors(settings):
        board = Board(f"node{len(list(tmp_path.iterdir()))}")
        bounds = limits(settings, tenants=0)
        return Doors([Gate("adaptive", bounds, board.row("adaptive")) for _ in range(2)])

    return open_doors


@pytest.mark.parametrize("told_apart", [True, False])
@pytest.mark.parametrize("name", MIXES)
def test_twice_the_capacity(name, told_apart):
    check_twice_the_capacity(MIXES[name], gate, told_apart)


@pytest.mark.parametrize("name", MIXES)
def test_twice_the_capacity_before_two_doors(name, two_doors):
    check_twice_the_capacity(MIXES[name], lambda: two_doors(QUICK), told_apart=True, doors=2)


@pytest.mark.parametrize("think_s", [0.0, 0.2])
def test_a_room_full_of_users_before_two_doors_is_never_refused(think_s, two_doors):
    click = Class(PROMPT, Priority.INTERACTIVE, 0, 0.012, 30.0)
    outcome = simulate_users([[click]] * 64, two_doors(PoolSettings()), think_s=think_s)
    assert outcome.refused == []
    assert outcome.answered() / 30 >= 0.9 / 0.012, "and they keep the engine busy"


def check_twice_the_capacity(mix, gate, told_apart, doors=1):
    """Two doors see a little less, and each has its own places."""
    quiet, unloaded_p99_s = run(mix, 0.1, gate(), seconds=LONG_S)
    outcome, p99_s = run(mix, 2.0, gate(), seconds=SECONDS, told_apart=told_apart)
    assert outcome.answered() / SECONDS >= 0.85 * capacity(mix)
    assert outcome.useful_s / SECONDS >= 0.85
    assert p99_s <= 3 * unloaded_p99_s
    assert outcome.late <= (0.001 if doors == 1 else 0.01) * outcome.answered(), "what was let in was answered in time"
    assert outcome.most_inside <= 32 * doors, "and what waits does not grow"
    assert len(quiet.refused) <= 0.002 * quiet.answered()


def test_as_shipped_bulk_images_do_not_hold_up_clicks():
    mix = MIXES["clicks over bulk images"]
    _, unloaded_p99_s = run(mix, 0.1, shipped(), seconds=LONG_S)
    outcome, p99_s = run(mix, 2.0, shipped(), seconds=SECONDS)
    assert outcome.answered() / SECONDS >= 0.85 * capacity(mix)
    assert p99_s <= 3 * unloaded_p99_s


@pytest.mark.parametrize("load", [2.0, 4.0])
def test_as_shipped_a_flood_of_clicks_is_noticed_and_clicks_are_quick_again(load):
    """The first seconds fill the line, as a crowd may; then it is short while the flood lasts."""
    mix = MIXES["clicks alone"]
    _, unloaded_p99_s = run(mix, 0.1, shipped(), seconds=LONG_S)
    outcome, p99_s = run(mix, load, shipped(), seconds=SECONDS, since_s=8.0)
    assert outcome.answered() / (SECONDS - 8) >= 0.85 * capacity(mix)
    assert p99_s <= 3 * unloaded_p99_s


@pytest.mark.parametrize("users", [1, 16, 32, 64])
@pytest.mark.parametrize("think_s", [0.0, 0.2])
def test_as_shipped_a_room_full_of_users_is_never_refused(users, think_s):
    click = Class(PROMPT, Priority.INTERACTIVE, 0, 0.012, 30.0)
    outcome = simulate_users([[click]] * users, shipped(), think_s=think_s)
    assert outcome.refused == []
    if users >= 32:
        assert outcome.answered() / 30 >= 0.9 / 0.012, "and they keep the engine busy"


@pytest.mark.parametrize("users", [8, 16])
@pytest.mark.parametrize("factor", [2.0, 6.0])
def test_as_shipped_users_of_a_machine_whose_speed_changes_are_not_refused(users, factor):
    click = Class(PROMPT, Priority.INTERACTIVE, 0, 0.02, 30.0)
    outcome = simulate_users([[click]] * users, shipped(), slowness=lambda at_s: factor if at_s % 6 < 3 else 1.0)
    assert outcome.refused == []


def test_as_shipped_sessions_that_all_begin_with_an_image_at_once_are_not_refused():
    image = Class(IMAGE, Priority.INTERACTIVE, 0, 0.2, 30.0)
    click = Class(PROMPT, Priority.INTERACTIVE, 0, 0.012, 30.0)
    outcome = simulate_users([[image, *[click] * 10]] * 8, shipped(), seconds=20.0)
    assert outcome.refused == []


def test_without_the_gate_it_fails():
    """What the tests above would show if the gate were open."""
    for name, mix in MIXES.items():
        _, unloaded_p99_s = run(mix, 0.1, None, seconds=LONG_S)
        outcome, p99_s = run(mix, 2.0, None, seconds=SECONDS)
        assert outcome.late > 0.001 * outcome.answered()
        if name != "clicks over bulk images":
            assert p99_s > 10 * unloaded_p99_s
        else:
            assert outcome.useful_s / SECONDS < 0.85
    alone, _ = run(MIXES["clicks alone"], 2.0, None, seconds=SECONDS)
    assert alone.answered() / SECONDS < 0.5 * capacity(MIXES["clicks alone"])


def test_the_same_seed_gives_the_same_result():
    first, again = (run(MIXES["clicks alone"], 2.0, gate(), seconds=5.0)[0] for _ in range(2))
    assert first.latency_s == again.latency_s
    assert first.refused == again.refused
