import pytest

from serving.router.demand import FLOOD, LASTING_S, MEMORY_S, Demand


def asked(rate, service_s, seconds, demand=None, start_s=0.0):
    """One request every 1 / rate seconds."""
    demand = demand or Demand()
    for number in range(int(rate * seconds)):
        demand.add(service_s, start_s + number / rate)
    return demand


@pytest.mark.parametrize("load", [0.3, 1.0, 2.0])
def test_the_level_is_the_work_that_is_asked_for(load):
    assert asked(100 * load, 0.01, 20).level(20) == pytest.approx(load, rel=0.02)


def test_more_than_can_be_done_for_a_while_is_a_flood():
    assert not asked(100, 0.01, 20).floods(20)
    flood = asked(200, 0.01, 20)
    assert flood.floods(20)
    assert not flood.floods(20 + MEMORY_S), "it is over soon after the last of it"


def test_a_burst_is_none():
    burst = Demand()
    for _ in range(32):
        burst.add(0.1, 5.0)
    assert burst.level(5.0) > FLOOD
    assert not burst.floods(5.0 + LASTING_S / 2)
    assert not burst.floods(5.0 + MEMORY_S)


def test_what_was_never_measured_counts_as_nothing():
    assert not asked(1000, 0.0, 10).floods(10)
