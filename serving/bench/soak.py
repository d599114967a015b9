"""The soak: mixed traffic at 80 % of capacity for ten minutes. No error, no wrong mask, no growth.

Its clients are patient: what deadlines do to goodput is S4's question, and how late an answer came is a row of the table.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from serving.bench import load
from serving.bench.bench import Bench
from serving.bench.figures import Result, Series, Table, Times, Verdict, median
from serving.bench.mix import Mix, capacity
from serving.bench.server import memory_bytes, shm_bytes

EVERY_S = 10.0
Reading = tuple[float, float, float]
"""Seconds since the start, memory and /dev/shm in MiB."""


def measure(bench: Bench) -> Result:
    """One long stretch, with the memory read as it goes."""
    found = Result("soak", "Soak at 80 % of capacity")
    seconds = bench.soak_s
    full, mix = capacity(bench, min(60.0, max(seconds / 10, 8.0))), Mix(bench, patient=True)
    bench.say(f"soaking for {seconds:.0f} s at {0.8 * full:.1f} requests/s")
    readings: list[Reading] = []

    async def both() -> load.Run:
        watcher = asyncio.create_task(_watch(bench, readings, min(EVERY_S, seconds / 8)))
        try:
            return await load.opened(bench.dial(), mix.asks(5), load.arrivals(0.8 * full, seconds, seed=5))
        finally:
            watcher.cancel()

    run = load.run(both())
    # The first half fills the Features' budget and every allocator's pools: growth is what comes after it.
    half = [r for r in readings if seconds * 0.35 <= r[0] < seconds * 0.6] or readings[:1]
    end = [r for r in readings if r[0] >= seconds * 0.75] or readings[-1:]
    growth = [median(r[n] for r in end) - median(r[n] for r in half) for n in (1, 2)] if readings else [0.0, 0.0]
    base = median(r[1] for r in half) if readings else 0.0
    found.verdicts += [
        Verdict(
            "errors", len(run.failed), 0, "<=", "", 0, str(dict(Counter(f"{s.kind} {s.status} {s.code}" for s in run.failed)))
        ),
        Verdict("masks that are not their golden", run.wrong, 0, "<=", "", 0, f"of {len(run.of('prompt'))}"),
        Verdict(
            "memory growth, middle to last quarter", growth[0], max(0.03 * base, 32.0), "<=", "MiB", 0, f"of {base:.0f} MiB"
        ),
        Verdict("/dev/shm growth, middle to last quarter", growth[1], 16.0, "<=", "MiB", 0),
    ]
    table = Table(f"{len(run.samples)} requests in {run.seconds:.0f} s", ("kind", "count", "p50, ms", "p95, ms", "p99, ms"))
    for kind in ("prompt", "classify", "encode"):
        times = Times.of(run.latencies(kind))
        table.add(kind, str(times.count), f"{times.p50_ms:.1f}", f"{times.p95_ms:.1f}", f"{times.p99_ms:.1f}")
    found.tables.append(table)
    lines = {"memory of all processes": [r[1] for r in readings], "/dev/shm": [r[2] for r in readings]}
    found.series.append(Series("Memory during the soak", "seconds", "MiB", [round(r[0]) for r in readings], lines))
    return found


async def _watch(bench: Bench, readings: list[Reading], every_s: float) -> None:
    began = time.monotonic()
    while True:
        readings.append(await asyncio.to_thread(_read, bench, began))
        await asyncio.sleep(every_s)


def _read(bench: Bench, began: float) -> Reading:
    pids = list(bench.server.processes())
    return time.monotonic() - began, memory_bytes(pids) / 2**20, shm_bytes(pids) / 2**20
