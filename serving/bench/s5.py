"""S5: what the front door adds, by the size of the body: a prompt with its image inline against the same decode in Triton.

The body is an NRRD volume of which one small slice is prompted, so that the mask costs the same whatever the body weighs. Its
Features are held. Triton gets the same decode with tritonclient, Features in registered shared memory, and no body: all that
carries, hashes and parses the body is counted as the front door's. Beside it: what bringing as many bytes into Triton costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import numpy as np
import numpy.typing as npt

from serving.bench import bare, load, wire
from serving.bench.bench import Bench
from serving.bench.figures import Result, Series, Spread, Table, Verdict, median
from serving.bench.pictures import Picture, nrrd
from serving.bench.plain_triton import Caller, PlainTriton

SIDE_PX = 100
SIZES = {"10 KB": 1, "0.1 MB": 10, "1 MB": 100, "10 MB": 1000}
"""Slices of 100 x 100 uint8."""
JUDGED = "10 KB"
LIMIT_MS = 2.5


def measure(bench: Bench) -> Result:
    """A plain Triton is started beside the server; calls of each size are measured in turn."""
    found = Result("s5", "S5: what the front door adds, by body size")
    sizes = {JUDGED: SIZES[JUDGED]} if bench.quick else SIZES
    prompt = Picture(1, SIDE_PX).prompts[0]
    segmenter_input = bare.prepare(Picture(1, SIDE_PX).pixels)[0]
    asked = bare.tokens(prompt.box, prompt.points, SIDE_PX)
    bodies = {name: nrrd(slices, SIDE_PX) for name, slices in sizes.items()}
    asks = {name: wire.inline(body, prompt, index=0) for name, body in bodies.items()}
    triton: dict[tuple[str, str], list[float]] = {}
    ours: dict[tuple[str, str], list[float]] = {}
    sink: dict[str, list[float]] = {}
    bench.say("starting a plain Triton for S5")
    with PlainTriton(bench.repository) as plain, closing(Caller(plain.address)) as caller:
        placed = caller.place(caller.encode(segmenter_input))
        seconds = max(bench.seconds / 2, 1.0)
        bare.repeat(lambda _: caller.decode(placed, *asked), 0.5)
        for ask in asks.values():  # encoded before anything is measured
            load.run(load.closed(bench.dial(), [iter([ask, ask])], 3600))
        for turn in range(bench.repeats):
            bench.say(f"S5, repeat {turn + 1} of {bench.repeats}")
            for name, body in bodies.items():
                array = np.frombuffer(body, np.uint8)
                sink.setdefault(name, []).append(1000 * median(bare.repeat(partial(_sink, caller, array), seconds / 4).seconds))
                for front in ("http", "grpc"):
                    mine, its = load.run(
                        _in_turn(bench.dial(front), asks[name], partial(caller.decode, placed, *asked), seconds)
                    )
                    ours.setdefault((front, name), []).append(1000 * median(mine))
                    triton.setdefault((front, name), []).append(1000 * median(its))
    table = Table(
        "Prompt with the image inline, Features held, in turn with Triton call by call: p50 in ms, median (range)",
        ("body", "HTTP", "gRPC", "Triton, the decode alone", "HTTP adds", "gRPC adds", "bytes into Triton"),
    )
    added: dict[str, list[float]] = {"HTTP": [], "gRPC": []}
    for name in sizes:
        http, grpc = ours["http", name], ours["grpc", name]
        extra = {
            "HTTP": [a - b for a, b in zip(http, triton["http", name], strict=True)],
            "gRPC": [a - b for a, b in zip(grpc, triton["grpc", name], strict=True)],
        }
        for front, values in extra.items():
            added[front].append(median(values))
        cells = [Spread.of(v).text(2) for v in (http, grpc, triton["http", name], extra["HTTP"], extra["gRPC"], sink[name])]
        table.add(name, *cells)
        if name == JUDGED:
            said = f"HTTP {median(http):.2f} ms, Triton {median(triton['http', name]):.2f} ms"
            found.verdicts.append(
                Verdict("the front door adds at 10 KB, HTTP, p50", median(extra["HTTP"]), LIMIT_MS, "<=", "ms", 2, said)
            )
    found.tables.append(table)
    if not bench.quick:
        found.series.append(Series("What the front door adds", "body", "ms", list(sizes), added, kind="bar", target=LIMIT_MS))
    return found


def _sink(caller: Caller, body: npt.NDArray[np.uint8], _: int) -> int:
    return caller.sink(body)


async def _in_turn(
    dial: load.Dial, ask: wire.Ask, triton: Callable[[], object], seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds of the server's calls and of Triton's, one after the other: what drifts, drifts for both."""
    mine: list[float] = []
    its: list[float] = []
    line, began = dial(), time.perf_counter()
    while len(its) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        triton()  # blocks this loop, in which nothing else runs
        its.append(time.perf_counter() - start)
        sample, _ = await load.ask_once(line, ask, began)
        if sample.ok and sample.features == "hit":
            mine.append(sample.seconds)
    await line.close()
    return mine, its
