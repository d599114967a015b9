"""S2: a cold burst. k clients open one image at the same moment, each with a prompt of its own."""

from __future__ import annotations

import time
from collections import Counter

from serving.bench import asking, bare, load
from serving.bench.bench import Bench
from serving.bench.figures import Result, Series, Spread, Table, Times, Verdict, median
from serving.bench.server import counter

CLIENTS = (1, 8, 32)
CACHE = "medserve_features_cache_total"


def measure(bench: Bench) -> Result:
    """Bursts of each size on a new picture, beside one bare encode and as many bare decodes."""
    found = Result("s2", "S2: cold burst")
    table = Table(
        "k clients open one new image together, HTTP: median (range) over the repeats",
        ("k", "p50, ms", "p95, ms", "bare encode + k decodes, ms", "p95 / bare", "encodes", "failed"),
    )
    decode = bench.bare_prompts
    judged: list[float] = []
    most_encodes, p95_line, bare_line, codes = 0, [], [], Counter[str]()
    for clients in CLIENTS[-1:] if bench.quick else CLIENTS:
        p50, p95, plain, ratios, encodes, failed = [], [], [], [], [], 0
        for turn in range(bench.repeats):
            bench.say(f"S2 burst of {clients}, repeat {turn + 1} of {bench.repeats}")
            picture = bench.fresh(1)[0]
            start = time.perf_counter()
            bench.segmenter.encode(bare.prepare(picture.pixels)[0])
            for number in range(clients):
                decode(number)
            plain.append(1000 * (time.perf_counter() - start))
            prompts = [picture.prompts[n % len(picture.prompts)] for n in range(clients)]
            before = counter(bench.server.http_url, CACHE, outcome="miss")
            run = load.run(load.together(bench.dial(), [asking.inline(picture.png, prompt) for prompt in prompts]))
            encodes.append(counter(bench.server.http_url, CACHE, outcome="miss") - before)
            times = Times.of(run.latencies())
            p50.append(times.p50_ms)
            p95.append(times.p95_ms)
            ratios.append(times.p95_ms / plain[-1])
            failed += len(run.failed)
            codes.update(f"{s.status} {s.code}" for s in run.failed)
        cells = [Spread.of(values).text(0) for values in (p50, p95, plain)]
        table.add(str(clients), *cells, Spread.of(ratios).text(2), Spread.of(encodes).text(0), str(failed))
        p95_line.append(median(p95))
        bare_line.append(median(plain))
        if clients == CLIENTS[-1]:
            judged, most_encodes = ratios, int(max(encodes))
            found.verdicts.append(Verdict("k = 32: encodes", most_encodes, 1, "<=", "", 0))
            found.verdicts.append(Verdict("k = 32: requests that failed", failed, 0, "<=", "", 0, str(dict(codes) or "")))
            said = f"{median(p95):.0f} ms against {median(plain):.0f} ms"
            found.verdicts.append(
                Verdict(
                    "k = 32: p95 first mask against one bare encode + 32 bare decodes", median(judged), 1.15, "<=", "x", 2, said
                )
            )
    found.tables.append(table)
    if not bench.quick:
        lines = {"p95 first mask": p95_line, "bare encode + k decodes": bare_line}
        found.series.append(Series("Cold burst on one image", "clients k", "ms", list(CLIENTS), lines))
    return found
