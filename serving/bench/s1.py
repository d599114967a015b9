"""S1: interactive sessions. An image, then ten prompts: click to mask alone and saturated, the first mask, whole sessions."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from itertools import count

from serving.bench import asking, bare, load, stock
from serving.bench.bench import Bench
from serving.bench.figures import Result, Series, Spread, Table, Times, Verdict, median, percentile
from serving.bench.load import Run
from serving.bench.pictures import Picture
from serving.bench.usage import Usage

SESSIONS = (1, 4, 8, 16)
SATURATED = 8
THINK_S = 0.2


def measure(bench: Bench) -> Result:
    """Everything of S1, bare engines and server in turn."""
    found = Result("s1", "S1: interactive sessions")
    warm(bench, found)
    first_masks(bench, found)
    if not bench.quick:
        encoders(bench, found)
        sessions(bench, found)
    return found


def warm(bench: Bench, found: Result) -> None:
    """Prompts on encoded images: one at a time, then eight at a time, each beside the bare decoder."""
    call = bench.bare_prompts
    bare.repeat(call, 0.3)
    load.run(load.closed(bench.dial(), bench.prompts(2), 0.5))
    rows: dict[str, list[tuple[float, float, float]]] = {}
    rates: dict[str, list[float]] = {}
    stages: dict[str, list[float]] = {}
    wrong, usage, calls = 0, Usage(bench.server), 0
    for turn in range(bench.repeats):
        bench.say(f"S1 warm prompts, repeat {turn + 1} of {bench.repeats}")
        for front in ("http", "grpc"):
            # Before and after what is compared with it: a shared machine's speed drifts.
            before = bare.repeat(call, bench.seconds / 2)
            one = load.run(load.closed(bench.dial(front), bench.prompts(1), bench.seconds))
            after = bare.repeat(call, bench.seconds / 2)
            both = bare.Stretch(before.seconds + after.seconds, before.wall_s + after.wall_s)
            _keep(rows, rates, f"bare decoder beside {front}", list(both.seconds), both.rate)
            _keep(rows, rates, f"{front}, K = 1", one.latencies(), one.rate())
            with Usage(bench.server) as spent:
                many = load.run(load.closed(bench.dial(front), bench.prompts(SATURATED), bench.seconds))
            _keep(rows, rates, f"{front}, K = {SATURATED}", many.latencies(), many.rate())
            wrong += one.wrong + many.wrong + len(one.failed) + len(many.failed)
            if front == "http":
                usage, calls = spent, len(many.samples)
                for sample in one.of():
                    for name, ms in sample.stages_ms.items():
                        stages.setdefault(name, []).append(ms)
    plain = "bare decoder beside http"
    base = [p50 for p50, _, _ in rows[plain]]
    ours = [p50 for p50, _, _ in rows["http, K = 1"]]
    tail = [p95 / p50 for p50, p95, _ in rows["http, K = 1"]]
    share = [a / b for a, b in zip(rates[f"http, K = {SATURATED}"], rates[plain], strict=True)]
    over = median([mine - (1.35 * its + 2.5) for mine, its in zip(ours, base, strict=True)])
    found.verdicts += [
        Verdict(
            "K = 1 click to mask over HTTP, p50, beyond 1.35 x the bare decoder + 2.5 ms", over, 0, "<=", "ms", 2,
            f"{median(ours):.2f} ms, bare {median(base):.2f} ms",
        ),
        Verdict("K = 1 click to mask over HTTP, p95 / p50", median(tail), 2.0, "<=", "", 2),
        Verdict(
            f"K = {SATURATED} saturated, prompts a second against the bare decoder's", median(share), 0.75, ">=", "", 2,
            f"{median(rates[f'http, K = {SATURATED}']):.0f}/s of {median(rates[plain]):.0f}/s",
        ),
        Verdict("masks that were wrong or failed", wrong, 0, "<=", "", 0),
    ]  # fmt: skip
    table = Table("Warm prompts, by repeat: median (range)", ("who", "p50, ms", "p95, ms", "p99, ms", "prompts/s"))
    for name, values in rows.items():
        columns = [Spread.of([row[n] for row in values]).text(2) for n in range(3)]
        table.add(name, *columns, Spread.of(rates[name]).text(0))
    found.tables.append(table)
    found.tables.append(stage_table("Server-Timing at K = 1 over HTTP", stages))
    each = usage.per_call_ms(calls)
    found.tables.append(
        Table(f"CPU a prompt at K = {SATURATED} over HTTP, ms", ("process", "ms"), [(n, f"{v:.2f}") for n, v in each.items()])
    )
    found.raw["warm"] = {"rows_ms": rows, "rates": rates, "cpu_ms": each}


def stage_table(title: str, stages: dict[str, list[float]]) -> Table:
    """p50 and p95 of each stage."""
    rows = [(name, f"{median(ms):.2f}", f"{percentile(ms, 95):.2f}") for name, ms in stages.items()]
    return Table(title, ("stage", "p50, ms", "p95, ms"), rows)


def _keep(
    rows: dict[str, list[tuple[float, float, float]]],
    rates: dict[str, list[float]],
    name: str,
    seconds: list[float],
    rate: float,
) -> None:
    times = Times.of(seconds)
    rows.setdefault(name, []).append((times.p50_ms, times.p95_ms, times.p99_ms))
    rates.setdefault(name, []).append(rate)


def first_masks(bench: Bench, found: Result) -> None:
    """The image itself with a prompt, never seen before, beside a bare encode and decode."""
    base, ours, ratios = [], [], []
    each = max(int(bench.seconds / 0.4), 3)
    bench.bare_first(Picture(0))
    for turn in range(bench.repeats):
        bench.say(f"S1 first mask, repeat {turn + 1} of {bench.repeats}")
        pictures = bench.fresh(each)
        plain = [_timed(bench, picture) for picture in pictures]
        asks = iter([asking.inline(picture.png, picture.prompts[0]) for picture in pictures])
        served = load.run(load.closed(bench.dial(), [asks], 3600))
        base.append(1000 * median(plain))
        ours.append(1000 * median(served.latencies()))
        ratios.append(ours[-1] / base[-1])
    said = f"bare encoder and decoder {median(base):.0f} ms, ours {median(ours):.0f} ms"
    found.verdicts.append(
        Verdict("first mask on a new image against the bare engines", median(ratios), 1.15, "<=", "x", 3, said)
    )
    rows = [("bare encoder + decoder", Spread.of(base).text()), ("HTTP, 512 x 512 PNG in the body", Spread.of(ours).text())]
    found.tables.append(Table("First mask on a new image", ("who", "p50, ms"), rows))
    found.raw["first"] = {"bare_ms": base, "ours_ms": ours}


def _timed(bench: Bench, picture: Picture) -> float:
    start = time.perf_counter()
    bench.bare_first(picture)
    return time.perf_counter() - start


def encoders(bench: Bench, found: Result) -> None:
    """The encoder as it is served against ONNX Runtime in float32 on the stock graph."""
    folder = stock.export(bench.cache / "stock", bench.home, bench.say)
    plain = bare.OnnxRuntime(folder / stock.FILES[0], bare.cores())
    tensors = [bare.prepare(known.picture.pixels)[0] for known in bench.known]
    ours, theirs, ratios = [], [], []
    for turn in range(bench.repeats):
        bench.say(f"encoders side by side, repeat {turn + 1} of {bench.repeats}")
        served = bare.repeat(lambda n: bench.segmenter.encode(tensors[n % len(tensors)]), bench.seconds / 2)
        stretch = bare.repeat(lambda n: plain.infer({"image": tensors[n % len(tensors)]}), bench.seconds / 2)
        ours.append(1000 * median(served.seconds))
        theirs.append(1000 * median(stretch.seconds))
        ratios.append(theirs[-1] / ours[-1])
    said = f"{median(theirs):.0f} ms against {median(ours):.0f} ms"
    verdict = Verdict("encoder at its gated precision against ONNX Runtime fp32", median(ratios), 1.5, ">=", "x", 2, said)
    found.verdicts.append(verdict)
    rows = [("as served (bare)", Spread.of(ours).text()), ("ONNX Runtime fp32, stock graph", Spread.of(theirs).text())]
    found.tables.append(Table("The image encoder", ("who", "ms an image"), rows))


def sessions(bench: Bench, found: Result) -> None:
    """K users: each shows an image, then ten prompts with 200 ms of thought between.

    Who is sent away, for want of room for an encode, comes back when the server said; that wait is part of the first mask.
    """
    table = Table(
        "Sessions with 200 ms of thought: K users, each an image and ten prompts, over HTTP",
        ("K", "first mask p50, ms", "click p50, ms", "click p95, ms", "click p99, ms", "sessions/min", "sent away", "failed"),
    )
    p50, p95 = [], []
    for users in SESSIONS:
        bench.say(f"S1 sessions, K = {users}")
        took = max(3 * bench.seconds, 6.0)
        run, away = load.run(_sessions(bench, users, took))
        times, firsts = Times.of(run.latencies("prompt")), Times.of(run.latencies("first"))
        done = len(run.of("first"))
        p50.append(times.p50_ms)
        p95.append(times.p95_ms)
        table.add(
            str(users), f"{firsts.p50_ms:.0f}", f"{times.p50_ms:.1f}", f"{times.p95_ms:.1f}", f"{times.p99_ms:.1f}",
             f"{60 * done / run.seconds:.0f}", str(away), str(len(run.failed)),
        )  # fmt: skip
    found.tables.append(table)
    found.series.append(
        Series("Click to mask in sessions", "users K", "ms", list(SESSIONS), {"p50": p50, "p95": p95}, target=100.0)
    )


async def _sessions(bench: Bench, users: int, seconds: float) -> tuple[Run, int]:
    """What they saw, and how often one was sent away."""
    found, began, seeds, away = Run(), time.perf_counter(), count(), 0
    pictures = bench.fresh(users * 3)

    async def user() -> None:
        nonlocal away
        line = bench.dial()()
        while time.perf_counter() - began < seconds:
            picture = pictures[next(seeds) % len(pictures)]
            start = time.perf_counter()
            sample, reply = await load.ask_once(line, asking.encode(picture.png), began)
            while await load.sent_away(sample, reply):
                away += 1
                if time.perf_counter() - began >= seconds:
                    await line.close()
                    return
                sample, reply = await load.ask_once(line, asking.encode(picture.png), began)
            if reply is None or not sample.ok:
                found.samples.append(sample)
                await asyncio.sleep(0.05)
                continue
            image_id = reply.image_id()
            for number, prompt in enumerate(picture.prompts):
                kind = "prompt" if number else "first"
                sample, _ = await load.ask_once(line, asking.by_handle(image_id, prompt, kind=kind), began)
                if not number:  # from the image's upload to the first mask
                    sample = replace(sample, seconds=time.perf_counter() - start)
                found.samples.append(sample)
                await asyncio.sleep(THINK_S)
        await line.close()

    await asyncio.gather(*(user() for _ in range(users)))
    found.seconds = time.perf_counter() - began
    return found, away
