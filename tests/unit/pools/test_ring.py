"""The ring of nodes: what moves when replicas or nodes change. No Ray runs: the router's maps are filled by hand."""

from dataclasses import dataclass, field

import pytest

from serving.pools.affinity import AffinityRouter

KEYS = [f"image {n}" for n in range(400)]


@dataclass(frozen=True)
class Id:
    unique_id: str


@dataclass
class Replica:
    node_id: str


@dataclass
class Bare:
    """What the ring's methods use of a router."""

    _replicas: dict = field(default_factory=dict)
    _num_virtual_nodes: int = 100
    _num_fallback_replicas: int = 2
    _rebuild_ring = AffinityRouter._rebuild_ring
    _nodes_from = AffinityRouter._nodes_from
    _lookup_ranked_replicas = AffinityRouter._lookup_ranked_replicas


def ring(**nodes):
    """node="replica replica" -> a router with that ring."""
    router = Bare({Id(name): Replica(node) for node, names in nodes.items() for name in names.split()})
    router._rebuild_ring(frozenset(router._replicas))
    return router


def homes(router):
    return {key: router._replicas[router._lookup_ranked_replicas(key)[0]].node_id for key in KEYS}


def test_a_replaced_replica_moves_no_image():
    assert homes(ring(a="1", b="2", c="3")) == homes(ring(a="4 1", b="5", c="6"))


def test_images_are_spread_over_the_nodes():
    found = list(homes(ring(a="1", b="2", c="3")).values())
    assert all(found.count(node) > len(KEYS) / 6 for node in "abc")


def test_a_lost_node_moves_its_own_images_only():
    before, after = homes(ring(a="1", b="2", c="3")), homes(ring(a="1", b="2"))
    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == "c"}


def test_replicas_of_the_home_come_first_and_a_successor_last():
    router = ring(a="1 2 3", b="4 5")
    for key in KEYS:
        ranked = [router._replicas[each].node_id for each in router._lookup_ranked_replicas(key)]
        assert len(ranked) == len(set(router._lookup_ranked_replicas(key))) == 3
        assert ranked[0] == ranked[1] != ranked[2]


def test_the_replicas_of_one_node_share_its_images():
    router = ring(a="1 2")
    first = [router._lookup_ranked_replicas(key)[0].unique_id for key in KEYS]
    assert first.count("1") == pytest.approx(len(KEYS) / 2, rel=0.3)


def test_an_empty_ring_has_no_home():
    assert ring()._lookup_ranked_replicas("x") == []
