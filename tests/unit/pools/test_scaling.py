"""Replicas by load: the band between more and fewer. What a queue holds at a load is Pollaczek's and Khinchine's formula."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from ray.serve.config import AutoscalingConfig

from serving import deployments
from serving.pools.scaling import band
from serving.settings import AutoscaleSettings, PoolSettings

TARGET = 1.5


@dataclass(frozen=True)
class Context:
    """What the policy uses of Ray's."""

    total_num_requests: float
    target_num_replicas: int
    config: AutoscalingConfig
    policy_state: dict = field(default_factory=dict)
    current_time: float = 0.0


def wanted(ongoing, replicas, target=TARGET):
    return band(Context(ongoing, replicas, AutoscalingConfig(max_replicas=9, target_ongoing_requests=target)))[0]


def ongoing(load, replicas):
    """Requests inside and waiting, in the mean, with constant service times and `load` engines' worth of work shared out."""
    busy = load / replicas
    return replicas * (busy + busy * busy / (2 * (1 - busy)))


CASES = [(0, 1, 0), (1.4, 1, 1), (1.6, 1, 2), (11, 1, 8), (4.4, 3, 3), (4.6, 3, 4), (1.6, 3, 3), (1.4, 3, 2), (0.7, 3, 1)]


@pytest.mark.parametrize(("requests", "replicas", "expected"), CASES)
def test_more_above_the_target_fewer_below_half_of_it(requests, replicas, expected):
    assert wanted(requests, replicas) == expected


@pytest.mark.parametrize("load", [n / 20 for n in range(1, 90)])
def test_whatever_the_load_the_number_comes_to_rest(load):
    """From above and from below: no load has replicas come and go for ever."""
    for replicas in (1, 9):
        seen = []
        while replicas not in seen:
            seen.append(replicas)
            now = ongoing(load, replicas) if load < 0.97 * replicas else 4 * replicas
            replicas = min(max(wanted(now, replicas), 1), 9)
        assert replicas == seen[-1], f"{seen} and again"
        assert load / replicas < 0.8


def test_a_replica_may_have_what_its_engines_take_at_a_time():
    def config(parallel, **said):
        scaling = AutoscaleSettings(max_replicas=4, **said)
        return deployments._scale(PoolSettings(parallel=parallel, autoscale=scaling))["autoscaling_config"]

    assert config(4).get_target_ongoing_requests() == 6
    assert config(4, target_ongoing=3).get_target_ongoing_requests() == 3
    assert config(4).policy.get_policy()(Context(13, 2, config(4)))[0] == 3
    assert config(4, up_after_s=10).look_back_period_s == 4


def test_a_moments_requests_do_not_begin_the_delay_anew():
    """Two replicas with a third of an engine's work: ten minutes of samples, in some of which there are several requests."""
    config = AutoscalingConfig(max_replicas=9, target_ongoing_requests=TARGET, downscale_delay_s=600)
    seen, state = [], {"slow": 3.0, "at_s": 0.0}
    for at_s, requests in enumerate(np.random.default_rng(5).poisson(0.35, 900), 1):
        wanted, state = band(Context(float(requests), 2, config, state, float(at_s)))
        seen.append(wanted)
    assert set(seen[:60]) == {2}
    assert set(seen[300:]) == {1}
