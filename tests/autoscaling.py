"""Replicas by load, tried: a locust ramp against a test cluster whose pool autoscales, and what happened second by second.

    python tests/autoscaling.py [--most 3] [--users 12] [--seconds 120] [--out docs/benchmarks]

Prints a line whenever the number of replicas changes and, at the end, what failed and locust's row of prompts. All replicas
share this machine's cores: what more of them can show here is that they come, that work moves to them, and that they go again
with nothing lost. That p95 recovers, only machines of their own can show.
"""

import argparse
import subprocess
import sys
import tempfile
import time
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
    """[(second, replicas, of the load or after it)], and locust's exit status and output."""
    command = [sys.executable, "-m", "locust", "-f", str(CHECKOUT / "loadtests" / "locustfile.py"), "--headless"]
    command += ["--host", cluster.http_url, "--shape", "ramp", "-u", str(users), "-t", f"{seconds}s", "S1Http"]
    began, seen = time.monotonic(), [(0.0, cluster.replicas())]
    with tempfile.TemporaryFile("w+") as output:
        load = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
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
        output.seek(0)
        return seen, status, output.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=3)
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with running(options.most) as cluster:
        seen, status, output = measure(cluster, options.users, options.seconds)
        counts = counted(cluster.http_url)
    changes = "\n".join(f"| {second:.0f} | {replicas} |" for second, replicas in seen)
    wanted = [line for line in output.splitlines() if "prompt" in line and "stage" not in line][-2:]
    rows = "\n".join(wanted)
    report = f"| second | replicas |\n| --- | --- |\n{changes}\n\n{counts}, locust's exit status {status}\n\n```\n{rows}\n```\n"
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
