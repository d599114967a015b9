"""Every metric that a dashboard or a rule names is shown by the running server, by its Triton or by its Ray."""

import numpy as np
import pytest
import queries
import scrapes
from running import wait_until

from serving.client import Client, GrpcClient
from serving.settings import CHECKOUT

pytestmark = pytest.mark.integration

RAY_REPORTS_S = 90


def pixels(seed):
    """A picture of this test alone: others count the misses of theirs."""
    return np.random.default_rng(50_000 + seed).integers(0, 255, (64, 64), np.uint8)


def shown(server):
    return {name for part in (scrapes.medserve, scrapes.triton, scrapes.ray) for name in scrapes.names(part(server))}


def wanted():
    """All of them; the self-check's only where an engine was built with one."""
    named = set(queries.every_metric())
    has_selfcheck = any((CHECKOUT / "model_repository").glob("*/*/selfcheck.npz"))
    return named if has_selfcheck else named - {"medserve_selfcheck_ok"}


def test_every_metric_of_a_query_is_shown(server):
    with Client(server.http_url) as http, GrpcClient(server.grpc_address) as grpc:
        for seed in range(3):
            http.segment(pixels(seed), boxes=[(8, 8, 40, 40)])
            grpc.segment(pixels(seed), boxes=[(8, 8, 40, 40)])
        http.classify([pixels(7)], ["edema", "lung nodule"], model="synthetic-cxr-clip")
    missing = wanted()

    def all_there():
        # Ray's processes report every few seconds, and a gauge of theirs may come and go: what was seen once exists.
        missing.difference_update(shown(server))
        return not missing

    try:
        wait_until(all_there, RAY_REPORTS_S, every_s=1)
    except AssertionError:
        where = queries.every_metric()
        raise AssertionError({name: where[name] for name in missing}) from None


def test_the_labels_that_alerts_tell_apart_are_there(server):
    text = scrapes.medserve(server)
    for line in ('medserve_pool_ready{pool="adaptive"} 1.0', 'medserve_pool_ready{pool="contrastive"} 1.0'):
        assert line in text
    assert 'medserve_features_arena_full_total{pool="adaptive"} 0.0' in text
    budget = next(
        line for line in text.splitlines() if line.startswith('medserve_features_arena_budget_bytes{pool="adaptive"}')
    )
    assert float(budget.split()[1]) > 0
    assert 'le="1.0"' in text
    assert 'application="medserve"' in scrapes.ray(server)
