"""S5: what the front door adds, by the size of the body: a prompt with its image inline against the same decode in Triton.

The body is an NRRD volume of which one small slice is prompted, so that the mask costs the same whatever the body weighs. Its
Features are held. The same decode is asked by tritonclient, without a body, of the server's own Triton (on the same slot of the
arena: what is judged) and of a plain one (Features in registered shared memory): all that carries, hashes and parses the body
is counted as the front door's. Beside it: what bringing as many bytes into Triton costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import numpy as np
import numpy.typing as npt

from serving.bench import asking, bare, load, own_triton
from serving.bench.bench import Bench
from serving.bench.figures import Result, Series, Spread, Table, Verdict, median
from serving.bench.pictures import Picture, nrrd
from serving.bench.plain_triton import Caller, PlainTriton
from serving.errors import SetupError

SIDE_PX = 100
SIZES = {"10 KB": 1, "0.1 MB": 10, "1 MB": 100, "10 MB": 1000}
"""Slices of 100 x 100 uint8."""
JUDGED = "10 KB"
LIMIT_MS = 2.5
FRONTS = ("http", "grpc")
OWN, PLAIN = "our Triton", "a plain Triton"


def measure(bench: Bench) -> Result:
    """A plain Triton is started beside the server; calls of each size are measured in turn."""
    found = Result("s5", "S5: what the front door adds, by body size")
    sizes = {JUDGED: SIZES[JUDGED]} if bench.quick else SIZES
    prompt = Picture(1, SIDE_PX).prompts[0]
    segmenter_input = bare.prepare(Picture(1, SIDE_PX).pixels)[0]
    asked = bare.tokens(prompt.box, prompt.points, SIDE_PX)
    bodies = {name: nrrd(slices, SIDE_PX) for name, slices in sizes.items()}
    asks = {name: asking.inline(body, prompt, index=0) for name, body in bodies.items()}
    spent: dict[tuple[str, str], list[float]] = {}
    bench.say("starting a plain Triton for S5")
    with PlainTriton(bench.repository) as plain, closing(Caller(plain.address)) as caller:
        placed = caller.place(caller.encode(segmenter_input))
        image_id = load.run(_encoded(bench.dial(), list(asks.values())))
        own = own_triton.decoder(bench.server, bench.segmenter.records["mask_decoder"], image_id, *asked)
        if own is None:
            found.notes.append("The server's own Triton is not known here (--url): a plain one stands in for it.")
        base: tuple[str, Callable[[], object]] = (OWN, own) if own else (PLAIN, partial(caller.decode, placed, *asked))
        seconds = max(bench.seconds / 2, 1.0)
        for turn in range(bench.repeats):
            bench.say(f"S5, repeat {turn + 1} of {bench.repeats}")
            for name, body in bodies.items():
                sink = bare.repeat(partial(_sink, caller, np.frombuffer(body, np.uint8)), seconds / 4)
                spent.setdefault(("sink", name), []).append(1000 * median(sink.seconds))
                for front in FRONTS:
                    mine, its = load.run(_in_turn(bench.dial(front), asks[name], base[1], seconds))
                    spent.setdefault((front, name), []).append(1000 * median(mine))
                    spent.setdefault((f"{front} decode", name), []).append(1000 * median(its))
            plain_times = bare.repeat(lambda _: caller.decode(placed, *asked), seconds)
            spent.setdefault((PLAIN, ""), []).append(1000 * median(plain_times.seconds))
    table = Table(
        "Prompt with the image inline, Features held, in turn with Triton call by call: p50 in ms, median (range)",
        ("body", "HTTP", "gRPC", f"decode in {base[0]}", "HTTP adds", "gRPC adds", f"decode in {PLAIN}", "bytes into Triton"),
    )
    added: dict[str, list[float]] = {front: [] for front in FRONTS}
    for name in sizes:
        extra = {
            front: [a - b for a, b in zip(spent[front, name], spent[f"{front} decode", name], strict=True)] for front in FRONTS
        }
        for front, values in extra.items():
            added[front].append(median(values))
        http, triton = spent["http", name], spent["http decode", name]
        columns = (http, spent["grpc", name], triton, *extra.values(), spent[PLAIN, ""], spent["sink", name])
        table.add(name, *(Spread.of(column).text(2) for column in columns))
        if name == JUDGED:
            said = f"HTTP {median(http):.2f} ms, {base[0]} {median(triton):.2f} ms"
            found.verdicts.append(
                Verdict("the front door adds at 10 KB, HTTP, p50", median(extra["http"]), LIMIT_MS, "<=", "ms", 2, said)
            )
    found.tables.append(table)
    if not bench.quick:
        found.series.append(Series("What the front door adds", "body", "ms", list(sizes), added, kind="bar", target=LIMIT_MS))
    return found


def _sink(caller: Caller, body: npt.NDArray[np.uint8], _: int) -> int:
    return caller.sink(body)


async def _encoded(dial: load.Dial, asks: list[asking.Ask]) -> str:
    """Encode all images before anything is measured; the handle of the first."""
    line, found = dial(), []
    for ask in asks:
        _, reply = await load.ask_once(line, ask, 0.0)
        found.append(reply.image_id() if reply is not None and reply.ok else "")
    await line.close()
    return found[0]


async def _in_turn(
    dial: load.Dial, ask: asking.Ask, triton: Callable[[], object], seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds of the server's calls and of Triton's, one after the other: what drifts, drifts for both."""
    mine: list[float] = []
    its: list[float] = []
    line, began = dial(), time.perf_counter()
    while len(mine) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        triton()  # blocks this loop, in which nothing else runs
        its.append(time.perf_counter() - start)
        sample, _ = await load.ask_once(line, ask, began)
        if not sample.ok:
            raise SetupError(f"the server does not answer a prompt: {sample.status} {sample.code}")
        mine.append(sample.seconds)
    await line.close()
    return mine, its
