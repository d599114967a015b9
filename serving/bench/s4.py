"""S4: mixed Poisson traffic, ramped from half to twice the capacity: what is answered in time, what a click waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from serving.bench import load
from serving.bench.bench import Bench
from serving.bench.figures import Result, Series, Table, Times, Verdict, percentile
from serving.bench.mix import PROMPT, Mix, capacity, good
from serving.bench.server import Running, Server, memory_bytes, shm_bytes

STEPS = (0.5, 1.0, 1.5, 2.0)
REFUSED = (429, 503)
SERVER = {"MEDSERVE_POOLS__ADAPTIVE__MAX_CLICK_WAIT_S": "0.002"}
"""Of the server that is ramped: clicks that would wait longer are sent back at once. The default lets a room of users wait."""


def measure(bench: Bench) -> Result:
    """Capacity, the unloaded click, then the ramp."""
    found = Result("s4", "S4: mixed traffic past capacity")
    stretch = 8.0 if bench.quick else max(bench.seconds * 4, 20.0)
    full = capacity(bench, stretch)
    with _ramped(bench, found) as ramped:
        _ramp(ramped, found, full, stretch)
    return found


@contextmanager
def _ramped(bench: Bench, found: Result) -> Iterator[Bench]:
    """The same bench on a server of its own with SERVER's settings; on the one there is, where that was started by others."""
    if isinstance(bench.server, Running):
        found.notes.append("The server's settings were its own.")
        yield bench
        return
    bench.say("starting a server for the ramp")
    found.notes.append(f"The ramp's server: {', '.join(f'{name}={value}' for name, value in SERVER.items())}.")
    with Server({"MEDSERVE_REPOSITORY__PATH": str(bench.repository), **SERVER}) as server:
        yield replace(bench, server=server)


def _ramp(bench: Bench, found: Result, full: float, stretch: float) -> None:
    """The unloaded click, then the steps. `full`: capacity in requests a second; `stretch`: of each step, seconds."""
    mix = Mix(bench)
    unloaded = Times.of(load.run(load.closed(bench.dial(), bench.prompts(1, PROMPT), stretch / 2, think_s=0.02)).latencies())
    table = Table(
        f"Open loop; capacity {full:.1f} requests/s; a click alone: p50 {unloaded.p50_ms:.1f}, p99 {unloaded.p99_ms:.1f} ms",
        ("offered, of capacity", "sent", "in time/s", "click p50, ms", "click p99, ms", "bulk p50, ms", "refused",
         "refusal p95, ms", "late (504)", "failed", "no answer", "memory, MiB",
         "Features and messages in shared memory, MiB"),
    )  # fmt: skip
    goodput, p99, memory = [], [], []
    for step in STEPS[-1:] if bench.quick else STEPS:
        bench.say(f"S4 at {step} of capacity")
        times = load.arrivals(step * full, stretch, seed=int(step * 10))
        run = load.run(load.opened(bench.dial(), mix.asks(int(step * 1000)), times))
        refusals = [s.seconds for s in run.samples if s.status in REFUSED]
        clicks, bulk = Times.of(run.latencies("prompt")), Times.of(run.latencies("classify", "encode"))
        by_status = Counter(s.status for s in run.failed)
        other = sum(n for status, n in by_status.items() if status not in (*REFUSED, 504, 0))
        unanswered = by_status[0] + len(times) - len(run.samples)
        pids = list(bench.server.processes())
        held = shm_bytes(pids) / 2**20  # Features fill their budget, and no more
        used = memory_bytes(pids, shm=False) / 2**20
        goodput.append(good(run))
        p99.append(clicks.p99_ms)
        memory.append(used)
        refused_p95 = 1000 * percentile(refusals, 95) if refusals else 0.0
        table.add(
            f"{step:.1f}", str(len(times)), f"{goodput[-1]:.1f}", f"{clicks.p50_ms:.1f}", f"{clicks.p99_ms:.1f}",
             f"{bulk.p50_ms:.0f}", str(len(refusals)), f"{refused_p95:.1f}", str(by_status[504]), str(other), str(unanswered),
             f"{used:.0f}", f"{held:.0f}",
        )  # fmt: skip
        found.raw[f"codes at {step}"] = dict(Counter(f"{s.kind} {s.status} {s.code}" for s in run.failed))
        if step == STEPS[-1]:
            found.verdicts += [
                Verdict("2 x capacity: goodput against capacity", goodput[-1] / full, 0.85, ">=", "x", 2),
                Verdict(
                    "2 x capacity: interactive p99 against unloaded p99", clicks.p99_ms / unloaded.p99_ms, 3.0, "<=", "x", 2,
                    f"{clicks.p99_ms:.0f} ms against {unloaded.p99_ms:.0f} ms",
                ),
                Verdict("2 x capacity: refusals answered, p95", refused_p95, 50.0, "<=", "ms", 1, f"{len(refusals)} refusals"),
                Verdict("2 x capacity: requests without an answer", unanswered, 0, "<=", "", 0),
                Verdict("2 x capacity: masks that are wrong", run.wrong, 0, "<=", "", 0),
            ]  # fmt: skip
    if len(memory) > 1 and memory[0] > 0:
        said = ", ".join(f"{each:.0f}" for each in memory) + " MiB"
        name = "memory, Features apart, after the ramp against its first step"
        found.verdicts.append(Verdict(name, memory[-1] / memory[0], 1.10, "<=", "x", 3, said))
    found.tables.append(table)
    if not bench.quick:
        found.series.append(
            Series("Goodput as the load passes capacity", "offered, of capacity", "requests/s",
                   list(STEPS), {"in time": goodput, "capacity": [full] * len(STEPS)})
        )  # fmt: skip
        found.series.append(
            Series("Interactive p99 while bulk work runs", "offered, of capacity", "ms",
                   list(STEPS), {"click p99": p99, "3 x unloaded p99": [3 * unloaded.p99_ms] * len(STEPS)})
        )  # fmt: skip
