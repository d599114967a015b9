"""The operator's procedures on two nodes, each with a Triton and an arena of its own, while users work: they lose nothing.

How much slower the users' calls get meanwhile is measured by `tests/operations.py`, on a quiet machine.
"""

import asyncio
import http.client
import select
import socket
from urllib.parse import urlsplit

import httpx
import operations
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.integration
SECONDS, THINK_S = 4, 0.5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with operations.running(2, tmp_path_factory.mktemp("versions")) as started:
        yield started


@pytest.fixture(scope="module")
def idle(cluster):
    """A kept-alive connection that says nothing until all is over."""
    connection = http.client.HTTPConnection(urlsplit(cluster.http_url).netloc, timeout=60)
    connection.request("GET", "/livez")
    assert connection.getresponse().read()
    return connection


@pytest.fixture(scope="module")
def seen(cluster, idle):
    """name -> (before, during, seconds), in the order in which they were done."""
    found = asyncio.run(operations.in_closed_loops(cluster, ["upgrade", "canary", "drain"], SECONDS, THINK_S))
    return {name: rest for name, *rest in found}


@pytest.mark.parametrize("name", ["upgrade", "canary", "drain"])
def test_nothing_is_lost_and_nothing_is_wrong(seen, name):
    before, during, _ = seen[name]
    assert before.counts["requests"] > 0
    assert during.counts["requests"] > 10
    assert not during.codes
    assert not during.counts["failed"]
    assert not during.counts["wrong"]
    assert during.counts["closed"] <= during.counts["requests"] / 20


def test_a_connection_that_idled_all_the_while_is_closed_or_good(seen, idle):
    """HAProxy's replaced processes know none of the replicas that there are now."""
    if select.select([idle.sock], [], [], 0)[0] and not idle.sock.recv(1, socket.MSG_PEEK):
        return  # a client sees that, and opens another
    idle.request("GET", "/livez")
    assert idle.getresponse().status == 200


def test_a_canary_moves_no_image(seen):
    assert not seen["canary"][1].counts["again"]


def test_an_upgrade_moves_few_images(seen):
    """None where each node gets its own replacement, which Ray does not promise."""
    counts = seen["upgrade"][1].counts
    assert counts["again"] <= counts["requests"] / 10


def test_both_versions_are_seen_with_their_digests(cluster, seen):
    shares = {}
    for family in text_string_to_metric_families(httpx.get(f"{cluster.http_url}/metrics", timeout=30).text):
        for sample in family.samples:
            if sample.name == "medserve_model_share":
                shares[sample.labels["model"]] = (sample.labels["digest"], sample.value)
    assert shares["litemedsam"][1] == 0
    assert shares["litemedsam@2"][1] == 1
    assert shares["litemedsam"][0] != shares["litemedsam@2"][0]
