"""Replicas by load, tried: a tide of locust's users against a test cluster whose pool autoscales, and what happened.

    python tests/autoscaling.py [--most 3] [--cores 0.4] [--users 14] [--seconds 170] [--keep FILE] [--out docs/benchmarks]

Each simulated node has a CPU limit, as a pod has (`shares.py`): a second one adds its part of a core, as another machine would.
The front, locust and Ray's head are beside the nodes and have what those leave of the cores. Few users come, then more than one
node can carry, which stay, then few again; each opens a picture, most of them known, and prompts it every second. A client that
is told to wait waits, and sends an image again whose Features are gone (locust's `--retries`, as the package's own client).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
from cluster import Cluster
from prometheus_client.parser import text_string_to_metric_families
from ray.serve.experimental.consistent_hash_router import DEFAULT_NUM_VIRTUAL_NODES
from shares import Shares
from tide import Call, Look, pictures, table, verdicts
from timeline import machine

from serving.bench.machine import describe
from serving.bench.pictures import Picture
from serving.bench.report import draw
from serving.client import Client
from serving.domain.image import EncodedImage
from serving.domain.request import Encode
from serving.pools.affinity import AffinityRouter
from serving.router import affinity
from serving.settings import CHECKOUT

UP_S, DOWN_S = 4, 15
"""Shorter than the defaults, 10 s and 10 minutes, for the run's sake."""
QUIET_S = 60
RETRIES, THINK_S, PROMPTS = 20, 1.0, 40
"""Of a user."""
EACH, NEW = 2, 0.05
"""Of the pictures that users open, so many have each node for their home when all serve; and so large a part is new: an encode
is worth fifty prompts. Few pictures taken as they come would leave one node idle and another full, as thousands do not."""


def running(most):
    """One replica at first, on one of `most` nodes."""
    scaling = {"MAX_REPLICAS": most, "UP_AFTER_S": UP_S, "DOWN_AFTER_S": DOWN_S}
    own = {f"MEDSERVE_POOLS__ADAPTIVE__AUTOSCALE__{key}": str(value) for key, value in scaling.items()}
    return Cluster(most, replicas=1, front_apart=True, MEDSERVE_ROUTER__REPLICAS="1", MEDSERVE_TRITON__THREADS="1", **own)


class Ring(AffinityRouter):
    """Where images are at home, without Ray: the router's own ring over nodes of which each has a replica."""

    def __init__(self, nodes):
        self._replicas = {Member(node, node): Member(node, node) for node in nodes}
        self._num_virtual_nodes = DEFAULT_NUM_VIRTUAL_NODES
        self._rebuild_ring(frozenset(self._replicas))

    def home(self, image):
        """The node of an image that is sent as a part."""
        return next(self._nodes_from(affinity.key(Encode(EncodedImage(image)))))


@dataclass(frozen=True)
class Member:
    unique_id: str
    node_id: str


def known(nodes):
    """Seeds of the pictures that users open: `EACH` of each node."""
    ring, found, seeds = Ring(nodes), {node: [] for node in nodes}, count(19_000)
    while any(len(mine) < EACH for mine in found.values()):
        seed = next(seeds)
        found[ring.home(Picture(seed).png)].append(seed)
    return [seed for several in zip(*(mine[:EACH] for mine in found.values()), strict=True) for seed in several]


def prepare(cluster, cores):
    """The nodes get their limits; the known pictures are encoded, and prompted once."""
    cluster.limit(cores)
    seeds = known([node["id"] for node in cluster.nodes.values()])
    with Client(cluster.http_url, retries=RETRIES) as client:
        for seed in seeds:
            picture = Picture(seed)
            client.segment(client.encode_image(picture.png), boxes=[picture.prompts[0].box])
    return seeds


def counted(url):
    """Changes of the replicas, prompts by handle that found their Features or not, and what the door refused."""
    names = {
        "medserve_affinity_rehash_total": "direction",
        "medserve_affinity_total": "outcome",
        "medserve_shed_total": "reason",
        "medserve_requests_total": "outcome",
    }
    found = Counter()
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text):
        for sample in family.samples:
            if sample.name in names and sample.value:
                found[f"{family.name.removeprefix('medserve_')} {sample.labels[names[sample.name]]}"] += int(sample.value)
    return dict(found)


def look(cluster, began):
    replicas = cluster.replicas()
    limited = [tuple(node["limited"]) for _, node in sorted(cluster.nodes.items())]
    return Look(time.monotonic() - began, replicas, machine(), limited)


def load(cluster, users, seconds, seeds, output, written):
    """Locust, begun."""
    files = f"{CHECKOUT / 'loadtests' / 'locustfile.py'},{CHECKOUT / 'tests' / 'written_calls.py'}"
    command = [sys.executable, "-m", "locust", "-f", files, "--headless", "--host", cluster.http_url, "--shape", "tide"]
    command += ["-u", str(users), "-t", f"{seconds}s", "--retries", str(RETRIES), "--think", str(THINK_S)]
    command += ["--prompts", str(PROMPTS), "--pictures", ",".join(map(str, seeds)), "--new", str(NEW), "S1Http"]
    return subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, text=True, env={**os.environ, "CALLS": str(written)}
    )


def measure(cluster, users, seconds, seeds, say=print):
    """(looks, calls): see `tide`."""
    began = time.monotonic()
    looks = [look(cluster, began)]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "output").open("w+") as output:
        written = Path(folder) / "calls"
        running = load(cluster, users, seconds, seeds, output, written)
        until = began + seconds + 3 * DOWN_S + QUIET_S
        while time.monotonic() < until and (running.poll() is None or looks[-1].replicas > 1):
            time.sleep(1)
            looks.append(look(cluster, began))
            if looks[-1].replicas != looks[-2].replicas:
                say(f"{looks[-1].at_s:.0f} s: {looks[-1].replicas} replicas", flush=True)
        running.wait(timeout=60)
        if not written.exists():
            raise SystemExit(f"locust made no call:\n{(Path(folder) / 'output').read_text()[-2000:]}")
        calls = [json.loads(line) for line in written.read_text().splitlines()]
    return looks, [Call(second - began, *rest) for second, *rest in calls]


def page(looks, calls, counts):
    """What a reader wants to know of the run."""
    changes = [one for one, before in zip(looks[1:], looks, strict=False) if one.replicas != before.replicas]
    lines = ["| second | replicas |", "| --- | --- |", f"| 0 | {looks[0].replicas} |"]
    lines += [f"| {one.at_s:.0f} | {one.replicas} |" for one in changes]
    lines += ["", table(looks, calls), ""]
    told = Counter(f"{call.name}: {call.failure}" for call in calls if call.failure is not None)
    told += Counter(f"asked again, {call.name}" for call in calls if call.type == "refused")
    lines += [f"- {count} x {what}" for what, count in told.most_common()]
    lines += ["- the server counted: " + ", ".join(f"{name} {value}" for name, value in sorted(counts.items())), ""]
    lines += [f"    {verdict.line()}" for verdict in verdicts(looks, calls)]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=3)
    parser.add_argument("--cores", type=float, default=0.4, help="the limit of a node")
    parser.add_argument("--users", type=int, default=14)
    parser.add_argument("--seconds", type=int, default=170)
    parser.add_argument("--keep", type=Path, help="write down every call and look")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not Shares.can_limit():
        raise SystemExit("no CPU limits can be set here (cgroup v1, as root): a replica more would add no capacity")
    with running(options.most) as cluster:
        looks, calls = measure(cluster, options.users, options.seconds, prepare(cluster, options.cores))
        counts = counted(cluster.http_url)
    if options.keep:
        said = {"looks": [vars(each) for each in looks], "calls": [vars(each) for each in calls], "counts": counts}
        options.keep.write_text(json.dumps(said))
    report = page(looks, calls, counts)
    print(report)
    if options.out:
        said = "\n".join(f"- {name}: {value}" for name, value in describe().items())
        command = f"python tests/autoscaling.py --most {options.most} --cores {options.cores:g} --users {options.users}"
        named = draw([pictures(looks, calls)], options.out / "autoscaling").items()
        shown = "\n".join(f"![{title}]({name})" for (_, title), name in named)
        head = f"# Autoscaling under a ramp\n\n`{command} --seconds {options.seconds}`, {time.strftime('%F')}\n\n{said}"
        (options.out / "autoscaling.md").write_text(f"{head}\n\n{report}\n\n{shown}\n")
    raise SystemExit(not all(verdict.passed for verdict in verdicts(looks, calls)))


if __name__ == "__main__":
    main()
