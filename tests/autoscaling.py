"""Replicas by load, tried: a locust ramp against a test cluster whose pool autoscales, and what happened second by second.

    python tests/autoscaling.py [--most 3] [--users 12] [--seconds 120] [--out docs/benchmarks]

Prints a line whenever the number of replicas changes and, at the end, the calls of each phase (before the first new replica,
until the most were there, with them) with their p95, and what failed. All replicas share this machine's cores: what more of
them can show here is that they come, that work moves to them, and that they go again with nothing lost. That p95 recovers,
only machines of their own can show.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
from cluster import Cluster
from prometheus_client.parser import text_string_to_metric_families

from serving.bench.machine import describe
from serving.settings import CHECKOUT

DOWN_S = 15
DELAYS = {"UP_AFTER_S": "3", "DOWN_AFTER_S": str(DOWN_S), "TARGET_ONGOING": "3"}
QUIET_S = 60


def running(most):
    """One replica at first, on one of `most` nodes."""
    autoscale = {f"MEDSERVE_POOLS__ADAPTIVE__AUTOSCALE__{key}": value for key, value in DELAYS.items()}
    return Cluster(most, replicas=1, MEDSERVE_POOLS__ADAPTIVE__AUTOSCALE__MAX_REPLICAS=str(most), **autoscale)


def counted(url):
    """Rehashes up and down, requests that failed, and those answered 404 `send_image_again` (the load has no other 4xx)."""
    found = {"up": 0, "down": 0, "failed": 0, "again": 0}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text):
        for sample in family.samples:
            if sample.name == "medserve_affinity_rehash_total" and sample.labels["direction"] in found:
                found[sample.labels["direction"]] += int(sample.value)
            if sample.name == "medserve_requests_total" and (outcome := sample.labels["outcome"]) != "ok":
                found["again" if outcome == "client_error" else "failed"] += int(sample.value)
    return found


def measure(cluster, users, seconds, say=print):
    """[(second, replicas, of the load or after it)], locust's calls (second, name, ms, failure), and its exit status."""
    files = f"{CHECKOUT / 'loadtests' / 'locustfile.py'},{CHECKOUT / 'tests' / 'written_calls.py'}"
    command = [sys.executable, "-m", "locust", "-f", files, "--headless"]
    command += ["--host", cluster.http_url, "--shape", "ramp", "-u", str(users), "-t", f"{seconds}s", "S1Http"]
    began, seen = time.monotonic(), [(0.0, cluster.replicas())]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "output").open("w+") as output:
        written = Path(folder) / "calls"
        load = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, text=True, env={**os.environ, "CALLS": str(written)}
        )
        until = began + seconds + 3 * DOWN_S + QUIET_S
        while time.monotonic() < until:
            now = cluster.replicas()
            if now != seen[-1][1]:
                seen.append((time.monotonic() - began, now))
                say(f"{seen[-1][0]:.0f} s: {now} replicas")
            if load.poll() is not None and now == 1:
                break
            time.sleep(1)
        status = load.wait(timeout=60)
        if not written.exists():
            raise SystemExit(f"locust made no call:\n{(Path(folder) / 'output').read_text()[-2000:]}")
        calls = [json.loads(line) for line in written.read_text().splitlines()]
    return seen, [(second - began, name, ms, failure) for second, name, ms, failure in calls], status


def phases(seen, calls):
    """(name, from, to) in seconds: before the first new replica, until the most were there, with the most."""
    most = max(replicas for _, replicas in seen)
    first = next((second for second, replicas in seen if replicas > seen[0][1]), float("inf"))
    full = next(second for second, replicas in seen if replicas == most) if most > seen[0][1] else float("inf")
    gone = next((second for second, replicas in seen if second > full and replicas < most), float("inf"))
    end = max((second for second, *_ in calls), default=0.0)
    edges = [0.0, *(min(each, end) for each in (first, full, gone)), end]
    return zip(("before", "going up", f"with {most}", "going down"), edges, edges[1:], strict=False)


def table(seen, calls):
    """A line a phase: its calls, what failed, and p50 and p95 in ms of prompts and of new images."""
    yield "| phase | seconds | calls a second | failed | prompt p50 | p95 | new image p50 | p95 |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, start, end in phases(seen, calls):
        inside = [each for each in calls if start <= each[0] < end]
        if inside:
            kinds = [
                [ms for _, kind, ms, failure in inside if failure is None and ("prompt" in kind) is said]
                for said in (True, False)
            ]
            figures = " | ".join(f"{quantile(each, 0.5)} | {quantile(each, 0.95)}" for each in kinds)
            failed = sum(failure is not None for *_, failure in inside)
            yield f"| {name} | {start:.0f} to {end:.0f} | {len(inside) / (end - start):.1f} | {failed} | {figures} |"


def quantile(values, share):
    """Of a list, as a whole number; a dash where it is empty."""
    return f"{sorted(values)[int(share * (len(values) - 1))]:.0f}" if values else "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=3)
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with running(options.most) as cluster:
        seen, calls, status = measure(cluster, options.users, options.seconds)
        counts = counted(cluster.http_url)
    changes = "\n".join(f"| {second:.0f} | {replicas} |" for second, replicas in seen)
    told = Counter(f"{name}: {failure}" for _, name, _, failure in calls if failure is not None)
    failures = "".join(f"- {count} x {what}\n" for what, count in told.most_common())
    rows = "\n".join(table(seen, calls))
    server = ", ".join(f"{key} {value}" for key, value in counts.items())
    said = f"Milliseconds. The server counted: {server}. locust: exit status {status}."
    told_of = f"Calls that failed:\n\n{failures}" if failures else "No call failed.\n"
    report = f"| second | replicas |\n| --- | --- |\n{changes}\n\n{rows}\n\n{said}\n\n{told_of}"
    print(report)
    if options.out:
        machine = "\n".join(f"- {name}: {value}" for name, value in describe().items())
        command = f"python tests/autoscaling.py --most {options.most} --users {options.users} --seconds {options.seconds}"
        page = f"# Autoscaling under a ramp\n\n`{command}`, {time.strftime('%F')}\n\n{machine}\n\n{report}"
        (options.out / "autoscaling.md").write_text(page)
    most = max(replicas for _, replicas in seen)
    raise SystemExit(not (most > 1 and seen[-1][1] == 1 and counts["failed"] == 0))


if __name__ == "__main__":
    main()
