from dataclasses import replace

import pytest

from serving.domain.request import Priority
from serving.errors import Kind
from serving.router.admission import Limits, Load, Refusal, Size, TooShort, decide, limits
from serving.settings import PoolSettings
from serving.telemetry.metrics import SHED_REASONS

LIMITS = Limits(parallel=1, places=100, bulk_places=10, max_wait_s=0.05, max_bulk_wait_s=2.0)
LOAD = Load(ahead_s=0.0, begun_s=0.0, service_s=0.01, next_s=0.003, inside=0, tenant_ahead_s=0.0, tenant_inside=0)
INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


@pytest.mark.parametrize(
    ("load", "priority", "left_s", "reason", "retry_after_s"),
    [
        ({}, INTERACTIVE, 1, None, 0),
        ({"ahead_s": 0.06}, INTERACTIVE, 1, None, 0),
        ({"ahead_s": 0.07}, INTERACTIVE, 1, "wait", 0.01),
        ({"ahead_s": 0.07}, BULK, 1, None, 0),
        ({"ahead_s": 2.51}, BULK, 60, "wait", 0.5),
        ({"ahead_s": 0.04}, INTERACTIVE, 0.045, "deadline", 0.005),
        ({"begun_s": 0.3}, INTERACTIVE, 1, None, 0),
        ({"begun_s": 0.3}, INTERACTIVE, 0.2, "deadline", 0.11),
        ({"ahead_s": 0.02, "service_s": 0.5}, INTERACTIVE, 0.5, "deadline", 0.02),
        ({"ahead_s": 0.02, "service_s": 1.0, "shared_s": 0.6}, INTERACTIVE, 0.5, "deadline", 0.02),
        ({"service_s": 5.0}, INTERACTIVE, 0.1, None, 0),
        ({"inside": 99}, INTERACTIVE, 1, None, 0),
        ({"inside": 100}, INTERACTIVE, 1, "pool_full", 0.003),
        ({"inside": 10}, BULK, 60, "pool_full", 0.003),
    ],
)
def test_who_may_enter_and_when_to_come_back(load, priority, left_s, reason, retry_after_s):
    found = decide(replace(LOAD, **load), priority, left_s, LIMITS)
    assert (found.reason if found else None) == reason
    assert found is None or found.retry_after_s == pytest.approx(retry_after_s)


@pytest.mark.parametrize(
    ("load", "priority"),
    [
        ({"ahead_s": 0.02}, INTERACTIVE),
        ({"begun_s": 0.02}, INTERACTIVE),
        ({"ahead_s": 9.0}, INTERACTIVE),
        ({"ahead_s": 0.02}, BULK),
        ({"ahead_s": 0.02, "inside": 100}, INTERACTIVE),
        ({"ahead_s": 0.02, "inside": 100, "tenant_inside": 100}, INTERACTIVE),
        ({"ahead_s": 0.02, "shared_s": 0.4}, INTERACTIVE),
    ],
)
def test_a_deadline_that_is_too_short_for_the_work_alone_is_no_matter_of_the_line(load, priority):
    """Whatever else would refuse it: no place and no pause would help."""
    late = replace(LOAD, service_s=1.0, **load)
    found = decide(late, priority, 0.5, LIMITS)
    assert found == TooShort(late.least_s)
    assert isinstance(decide(late, priority, late.least_s, LIMITS), Refusal), "with just enough time it is to come back"


@pytest.mark.parametrize(("least_s", "said"), [(0.3404, "340 ms"), (0.0001, "1 ms")])
def test_who_has_too_little_time_is_told_how_much_it_takes(least_s, said):
    fault = TooShort(least_s).fault("adaptive")
    assert (fault.kind, fault.param, fault.retry_after_s) == (Kind.DEADLINE, "deadline", None)
    assert fault.message == (f"the adaptive pool takes about {said} for such a request, more than its deadline leaves")


@pytest.mark.parametrize(
    ("load", "reason", "retry_after_s"),
    [
        ({"ahead_s": 0.05, "tenant_ahead_s": 0.02, "inside": 60, "tenant_inside": 49}, None, 0),
        ({"ahead_s": 0.05, "tenant_ahead_s": 0.04}, "over_quota", 0.01),
        ({"inside": 60, "tenant_inside": 50}, "over_quota", 0.003),
        ({"inside": 60, "tenant_inside": 0}, None, 0),
    ],
)
def test_one_tenant_leaves_room_for_the_others(load, reason, retry_after_s):
    found = decide(replace(LOAD, **load), INTERACTIVE, 1, replace(LIMITS, tenant_share=0.5))
    assert (found.reason if found else None) == reason
    assert found is None or found.retry_after_s == pytest.approx(retry_after_s)


def test_a_refusal_is_a_fault_that_says_what_would_be_right():
    assert Refusal("over_quota", 0.5).fault("adaptive").kind is Kind.OVER_QUOTA
    for reason in SHED_REASONS:
        fault = Refusal(reason, 0.5).fault("adaptive")
        assert fault.kind in (Kind.OVER_QUOTA, Kind.POOL_FULL)
        assert fault.kind.row.retryable
        assert (fault.retry_after_s, "adaptive pool" in fault.message) == (0.5, True)


def test_the_limits_are_those_of_the_settings_and_one_tenant_has_no_share():
    pool = PoolSettings(replicas=2, max_ongoing=32, max_queued=16, max_bulk=8, parallel=3, max_tenant_share=0.25)
    alone, several = limits(pool, 1), limits(pool, 2)
    assert (alone.parallel, alone.places, alone.bulk_places) == (3, 80, 16)
    assert (alone.tenant_share, several.tenant_share) == (1.0, 0.25)
    assert (alone.max_wait_s, alone.max_bulk_wait_s) == (pool.max_wait_s, pool.max_bulk_wait_s)
    assert (alone.max_click_wait_s, alone.flood_waits) == (pool.max_wait_s, pool.flood_waits)
    assert limits(PoolSettings(max_click_wait_s=0.1), 1).max_click_wait_s == 0.1


@pytest.mark.parametrize(
    ("load", "priority", "bound_s"),
    [
        ({}, INTERACTIVE, 0.06),
        ({"click": True}, INTERACTIVE, 0.05),
        ({"click": True, "flood": True}, INTERACTIVE, 0.03),
        ({"flood": True}, INTERACTIVE, 0.06),
        ({"click": True, "flood": True}, BULK, 2.01),
        ({"click": True, "flood": True, "service_s": 0.0}, INTERACTIVE, 0.04),
    ],
)
def test_clicks_have_a_bound_of_their_own_and_a_tight_one_in_a_flood(load, priority, bound_s):
    tight = replace(LIMITS, max_click_wait_s=0.04, flood_waits=3.0)
    for beyond_s, refused in ((-0.001, False), (0.001, True)):
        found = decide(replace(LOAD, ahead_s=bound_s + beyond_s, **load), priority, 60, tight)
        assert (found is not None and found.reason == "wait") is refused


def test_a_pool_on_more_nodes_takes_more_at_a_time():
    pool = PoolSettings(replicas=2, max_ongoing=10, max_queued=5, max_bulk=3, parallel=4)
    told = [(found.parallel, found.places, found.bulk_places) for found in (limits(pool, 0), limits(pool, 0, Size(3, 6)))]
    assert told == [(4, 25, 6), (12, 65, 18)]
