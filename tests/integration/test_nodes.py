"""Affinity by image hash: a Ray cluster of two nodes, each with its own Triton and arena, and several replicas of one node.

The tests on the cluster run in order: what one encodes, the next finds.
"""

import json
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import nibabel
import numpy as np
import pytest
from cluster import Cluster
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families
from running import Medserve, wait_until

from serving.client import Client, GrpcClient, MedserveError, calls, grpc_wire
from serving.edge.proto import inference_pb2 as pb
from serving.embeddings.arena import Arena

pytestmark = pytest.mark.integration
BOX = [(16, 16, 100, 100)]
ROUTERS = 2
SLOW = [(16, 16, 90 + n, 100) for n in range(8)]
"""Prompts that keep a replica busy for a while."""
POOL = {"MEDSERVE_POOLS__ADAPTIVE__MAX_ONGOING": "2", "MEDSERVE_POOLS__ADAPTIVE__MAX_WAIT_S": "60"}
"""Soon full, and refused never: what waits is tried elsewhere, however slow the machine."""
AT_ONCE = 10
PATIENCE_S = 120
LABELS = {
    "medserve_features_cache_total": "outcome",
    "medserve_affinity_total": "outcome",
    "medserve_affinity_routes_total": "outcome",
    "medserve_affinity_rehash_total": "direction",
}


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, its handle, and the mask of its first answer."""

    pixels: np.ndarray
    handle: str
    mask: np.ndarray


def pixels(seed):
    y, x = np.mgrid[:128, :128]
    disc = np.hypot(x - 58, y - 58) < 20 + seed
    return (40 + 150 * disc + np.random.default_rng(seed).normal(0, 5, disc.shape)).clip(0, 255).astype(np.uint8)


def counted(server):
    """{"features_cache hit": 3, "affinity_rehash up": 1, ...} of one scrape. Differences have only what grew."""
    text = httpx.get(f"{server.http_url}/metrics", timeout=30).text
    found = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in LABELS:
                short = sample.name.removeprefix("medserve_").removesuffix("_total")
                found[f"{short} {sample.labels[LABELS[sample.name]]}"] += int(sample.value)
    return found


def held(node):
    """How many images' Features a node's arena holds."""
    arena = Arena(node["region"])
    try:
        return arena.used_bytes() // arena.slot_bytes
    finally:
        arena.close()


def at_once(server, ask):
    """What the same question, asked by AT_ONCE clients over both fronts at the same time, was answered."""
    begin = threading.Barrier(AT_ONCE)

    def one(number):
        with Client(server.http_url) if number % 2 else GrpcClient(server.grpc_address) as client:
            begin.wait()
            return ask(client)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(one, range(AT_ONCE)))


def same(answers):
    masks = [np.stack([mask.array for mask in answer.masks]) for answer in answers]
    return all(np.array_equal(mask, masks[0]) for mask in masks)


def by_handle(client, picture):
    """Whether the handle is still known. The mask is the first one, either way."""
    try:
        found = client.segment(image_id=picture.handle, boxes=BOX)
        known = True
    except MedserveError as error:
        if error.code != "send_image_again":
            raise
        found = client.segment(picture.pixels, boxes=BOX)
        known = False
    assert np.array_equal(found.masks[0].array, picture.mask)
    return known


class Load:
    """Clients over both fronts that send picture after picture; every answer is compared with the first of its picture.

    They are no more than one replica takes at a time: Ray's router tries again by turns of its own, and whoever waits for a
    full replica may wait for long while others come and go.
    """

    def __init__(self, server, pictures, clients=2):
        self._server = server
        self._pictures = pictures
        self.wrong, self.faults, self.answers = [], [], []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(clients)]

    def _work(self, number):
        with Client(self._server.http_url) if number % 2 else GrpcClient(self._server.grpc_address) as client:
            turn = number
            while not self._done.is_set():
                turn += 1
                picture = self._pictures[turn % len(self._pictures)]
                try:
                    found = client.segment(picture.pixels, boxes=BOX)
                except MedserveError as error:
                    self.faults.append(error)
                    time.sleep(0.05)
                    continue
                self.answers.append(time.monotonic())
                if not np.array_equal(found.masks[0].array, picture.mask):
                    self.wrong.append(number)

    def goes_well(self):
        """So many answers without a fault between that every client has sent every picture."""
        faults, answers = len(self.faults), len(self.answers)
        wanted = len(self._threads) * len(self._pictures)
        wait_until(lambda: len(self.faults) > faults or len(self.answers) > answers + wanted, PATIENCE_S)
        return len(self.faults) == faults

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.answers) > 2 * len(self._threads), PATIENCE_S)
        return self

    def __exit__(self, *exc):
        self._done.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def cluster():
    with Cluster(2, MEDSERVE_ROUTER__REPLICAS=str(ROUTERS), **POOL) as running:
        # Every router makes its ring with its first prompt.
        at_once(running, lambda client: client.segment(pixels(99), boxes=BOX))
        yield running


@pytest.fixture(scope="module")
def pictures(cluster):
    """Encoded once each, until either node holds two; and what that counted."""
    nodes = list(cluster.nodes.values())
    at_first, before, made = [held(node) for node in nodes], counted(cluster), []
    with Client(cluster.http_url) as client:
        while len(made) < 6 or any(held(node) < was + 2 for node, was in zip(nodes, at_first, strict=True)):
            assert len(made) < 30, "one node has got nearly all images"
            found = client.segment(pixels(len(made)), boxes=BOX)
            made.append(Picture(pixels(len(made)), found.image_id, found.masks[0].array))
    assert sum(held(node) for node in nodes) == sum(at_first) + len(made)
    assert counted(cluster) - before == {"features_cache miss": len(made), "affinity_routes home": len(made)}
    return made


def test_prompts_land_where_their_features_are(cluster, pictures):
    before = counted(cluster)
    with Client(cluster.http_url) as http, GrpcClient(cluster.grpc_address) as rpc:
        for picture in pictures:
            for client in (http, rpc):
                assert by_handle(client, picture)
                assert np.array_equal(client.segment(picture.pixels, boxes=BOX).masks[0].array, picture.mask)
    prompts = 4 * len(pictures)
    spent = {"features_cache hit": prompts, "affinity_routes home": prompts, "affinity hit": prompts // 2}
    assert counted(cluster) - before == spent


def test_a_full_home_hands_over_to_its_successor(cluster, pictures):
    before = counted(cluster)
    answers = at_once(cluster, lambda client: client.segment(pictures[0].pixels, boxes=SLOW))
    more = counted(cluster) - before
    assert same(answers)
    assert more["affinity_routes fallback"] > 0
    assert more["affinity_routes home"] + more["affinity_routes fallback"] == AT_ONCE
    assert more["features_cache miss"] == 1, "the successor encodes once"


def test_prompts_by_handle_wait_for_a_full_home(cluster, pictures):
    before = counted(cluster)
    answers = at_once(cluster, lambda client: client.segment(image_id=pictures[1].handle, boxes=SLOW))
    assert same(answers)
    spent = {"features_cache hit": AT_ONCE, "affinity_routes home": AT_ONCE, "affinity hit": AT_ONCE}
    assert counted(cluster) - before == spent


@pytest.mark.parametrize(("replicas", "direction"), [(1, "down"), (2, "up")])
def test_scaling_moves_some_images_and_loses_nothing(cluster, pictures, replicas, direction):
    before = counted(cluster)
    with Load(cluster, pictures[:1]) as load:  # both nodes hold this one
        cluster.scale(replicas)
        wait_until(lambda: (counted(cluster) - before)[f"affinity_rehash {direction}"] == ROUTERS, PATIENCE_S)
        with Client(cluster.http_url, retries=0) as client:
            known = [by_handle(client, picture) for picture in pictures]
            again = [by_handle(client, picture) for picture in pictures]
    more = counted(cluster) - before
    assert not load.faults
    assert not load.wrong
    moved = known.count(False)
    if direction == "down":
        assert 0 < moved < len(pictures)
    assert more["affinity miss"] == moved + again.count(False)
    assert more["features_cache miss"] == moved
    assert {name for name in more if "rehash" in name} == {f"affinity_rehash {direction}"}


def test_a_dead_triton_fails_retryably_and_its_node_comes_back(cluster, pictures):
    with Load(cluster, pictures) as load:
        os.kill(next(iter(cluster.nodes.values()))["triton_pid"], signal.SIGKILL)
        wait_until(lambda: load.faults, PATIENCE_S)
        wait_until(load.goes_well, PATIENCE_S)
    assert not load.wrong
    assert {fault.code for fault in load.faults} == {"engine_unavailable"}
    assert all(fault.retryable for fault in load.faults)


def test_a_lost_node_costs_what_was_in_flight_and_the_other_takes_over(cluster, pictures):
    """The last of the cluster's tests: one node is left, and every picture is answered there as before."""
    with Load(cluster, pictures) as load:
        cluster.kill_node(max(map(int, cluster.nodes)))
        wait_until(load.goes_well, PATIENCE_S)
    assert not load.wrong
    assert len(cluster.nodes) == 1


@pytest.fixture(scope="module")
def apart():
    """One node with two replicas of the pool."""
    two = {**POOL, "MEDSERVE_POOLS__ADAPTIVE__REPLICAS": "2"}
    with Medserve(MEDSERVE_REPOSITORY__MODELS="litemedsam", MEDSERVE_SHAPE="apart", **two) as running:
        yield running


def test_replicas_of_one_node_share_what_either_encoded(apart):
    before = counted(apart)
    answers = at_once(apart, lambda client: client.segment(pixels(1), boxes=SLOW))
    answers += at_once(apart, lambda client: client.segment(image_id=answers[0].image_id, boxes=SLOW))
    more = counted(apart) - before
    assert same(answers)
    assert more["affinity_routes fallback"] > 0
    assert more["features_cache miss"] == 1
    assert more["features_cache hit"] + more["features_cache coalesced"] == 2 * AT_ONCE - 1
    assert more["affinity hit"] == AT_ONCE
    assert not more["affinity miss"]


def test_the_prompts_of_a_session_are_in_flight_together(apart):
    """Ray's router looks calls up by an id that those of one stream share; see `serving.pools.affinity`."""
    image = grpc_wire.image(calls.encode_image(pixels(2)).uploads[0])
    messages = [pb.SegmentSessionRequest(id="image", image=pb.EncodeImageRequest(image=image))]
    for number in range(AT_ONCE):
        body = calls.segment(None, boxes=[(16, 16, 90 + number, 100)], image_id="the one that is shown").body
        prompt = pb.SessionPrompt(objects=grpc_wire.object_prompts(body), **grpc_wire.mask_options(body))
        messages.append(pb.SegmentSessionRequest(id=str(number), prompt=prompt))
    with grpc.insecure_channel(apart.grpc_address) as channel:
        method = channel.stream_stream(
            f"/{grpc_wire.SERVICE}/SegmentSession", grpc_wire.serialise, pb.SegmentSessionResponse.FromString
        )
        answers = list(method(iter(messages), timeout=PATIENCE_S))
    assert [answer.WhichOneof("kind") for answer in answers] == ["image"] + ["masks"] * AT_ONCE


def test_a_volume_is_walked_in_a_pool_of_its_own_process(apart):
    """Its events cross from the pool to the router as they come, and a cancellation the other way."""
    volume = np.stack([pixels(number) for number in range(8)], axis=2).astype(np.int16).transpose(1, 0, 2)
    data = nibabel.Nifti1Image(volume, np.eye(4)).to_bytes()
    told = []

    def stop(progress):
        raise KeyboardInterrupt

    with Client(apart.http_url, retries=20) as client:
        found = client.segment_volume(data, boxes=[(30, 30, 1, 90, 90, 5)], progress=told.append)
        with pytest.raises(KeyboardInterrupt):
            client.segment_volume(data, boxes=[(30, 30, 0, 90, 90, 7)], progress=stop)
    assert [each.slice for each in told] == [3, 4, 5, 2, 1]
    assert (found.objects[0].first, found.objects[0].last) == (1, 5)
    wait_until(lambda: volume_jobs(apart) == {"done": 1, "failed": 0, "cancelled": 1, "active": 0}, PATIENCE_S)


def volume_jobs(server):
    families = text_string_to_metric_families(httpx.get(f"{server.http_url}/metrics", timeout=30).text)
    samples = [sample for family in families for sample in family.samples if sample.name.startswith("medserve_volume_jobs")]
    return {sample.labels.get("outcome", "active"): int(sample.value) for sample in samples}


def test_routers_with_pools_inside_share_what_either_encoded(server):
    before, answered_before, answers = counted(server), answered_by(server), []
    while len(answered_by(server) - answered_before) < ROUTERS or len(answers) < 8:
        assert len(answers) < 40, "one router has answered nearly everything"
        opened = Client(server.http_url, retries=20) if len(answers) % 2 else GrpcClient(server.grpc_address, retries=20)
        asked = {"image_id": answers[0].image_id} if len(answers) % 4 > 1 else {"image": pixels(50)}
        with opened as client:
            answers.append(client.segment(boxes=BOX, **asked))
    more = counted(server) - before
    assert same(answers)
    assert more == {
        "features_cache miss": 1,
        "features_cache hit": len(answers) - 1,
        "affinity hit": sum(number % 4 > 1 for number in range(len(answers))),
    }


def answered_by(server):
    """Process id -> requests that it answered, of the routers of a running server, from the files that they write."""
    found = Counter()
    for path in (Path(tempfile.gettempdir()) / f"medserve-{server.pid}" / "metrics").glob("counter_*.db"):
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):
            if json.loads(key)[1] == "medserve_requests_total":
                found[path.stem] += int(value)
    return +found
