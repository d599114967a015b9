"""S3: zero-shot classification with CLIP ViT-B/32 (random weights, full size): images a second that keep p95 below 100 ms."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from serving.bench import asking, bare, clip_b32, load
from serving.bench.asking import Ask
from serving.bench.bench import Bench
from serving.bench.figures import Result, Series, Spread, Table, Times, Verdict, median
from serving.bench.pictures import endless, several
from serving.bench.s1 import stage_table
from serving.bench.usage import Usage

LIMIT_MS = 100.0
CLIENTS = (1, 2, 4, 6)
SIDE_PX = 224
LABELS = {
    14: (
        "no finding",
        "enlarged cardiomediastinum",
        "cardiomegaly",
        "lung lesion",
        "lung opacity",
        "edema",
        "consolidation",
        "pneumonia",
        "atelectasis",
        "pneumothorax",
        "pleural effusion",
        "pleural other",
        "fracture",
        "support devices",
    ),
    100: tuple(f"finding number {n} of the list" for n in range(100)),
}


def measure(bench: Bench) -> Result:
    """Each number of clients at 14 and at 100 labels, beside the bare image tower."""
    found = Result("s3", "S3: zero-shot classification, CLIP ViT-B/32")
    record = bare.read_record(bench.repository, clip_b32.MODEL)["engines"]["image_encoder"][0]
    tower = bare.open_engine(bench.repository, record)
    pixels = {batch: np.random.default_rng(0).normal(size=(batch, 3, SIDE_PX, SIDE_PX)).astype(np.float32) for batch in (1, 4)}
    files = endless(several(32, 500, SIDE_PX))
    clients = (2, 4) if bench.quick else CLIENTS
    plain: dict[int, list[float]] = {1: [], 4: []}
    rates: dict[tuple[int, int], list[float]] = {}
    p95: dict[tuple[int, int], list[float]] = {}
    failed, stages, usage, calls = 0, dict[str, list[float]](), Usage(bench.server), 0
    for labels in LABELS.values():  # once ahead: the labels' vectors, the first call
        load.run(load.closed(bench.dial(), [iter([asking.classify(next(files), labels, clip_b32.MODEL)])], 60))
    for turn in range(bench.repeats):
        bench.say(f"S3, repeat {turn + 1} of {bench.repeats}")
        for batch, values in plain.items():
            values.append(batch * bare.repeat(partial(_tower, tower, pixels[batch]), bench.seconds / 2).rate)
        for count, labels in LABELS.items():
            for several_ in clients:
                streams = [_asks(files, labels) for _ in range(several_)]
                with usage:
                    run = load.run(load.closed(bench.dial(), streams, bench.seconds))
                calls = len(run.samples)
                rates.setdefault((count, several_), []).append(run.rate())
                p95.setdefault((count, several_), []).append(Times.of(run.latencies()).p95_ms)
                failed += len(run.failed)
                for sample in run.of():
                    for name, ms in sample.stages_ms.items():
                        stages.setdefault(name, []).append(ms)
    table = Table(
        "Images a second over HTTP: median (range)", ("labels", "clients", "images/s", "p95, ms", "of the bare tower")
    )
    for count in LABELS:
        rows = [(several_, rates[count, several_], p95[count, several_]) for several_ in clients]
        for several_, rate, tail in rows:
            share = [r / b for r, b in zip(rate, plain[1], strict=True)]
            table.add(str(count), str(several_), Spread.of(rate).text(), Spread.of(tail).text(), Spread.of(share).text(2))
        fitting = [row for row in rows if median(row[2]) < LIMIT_MS] or rows[:1]
        several_, rate, tail = max(fitting, key=lambda row: median(row[1]))
        share = [r / b for r, b in zip(rate, plain[1], strict=True)]
        said = f"{several_} clients, {median(rate):.0f}/s of {median(plain[1]):.0f}/s"
        found.verdicts += [
            Verdict(f"{count} labels: throughput against the bare image tower", median(share), 0.75, ">=", "x", 2, said),
            Verdict(f"{count} labels: p95 at that throughput", median(tail), LIMIT_MS, "<=", "ms", 1),
        ]
    found.verdicts.append(Verdict("requests that failed", failed, 0, "<=", "", 0))
    bare_rows = [(f"batch {batch}", Spread.of(values).text()) for batch, values in plain.items()]
    found.tables += [
        table,
        Table("The bare image tower", ("batch", "images/s"), bare_rows),
        stage_table("Server-Timing", stages),
    ]
    each = usage.per_call_ms(calls)
    found.tables.append(Table("CPU an image, ms", ("process", "ms"), [(n, f"{v:.2f}") for n, v in each.items()]))
    lines = {f"{count} labels": [median(rates[count, c]) for c in clients] for count in LABELS}
    lines["bare tower"] = [median(plain[1])] * len(clients)
    found.series.append(Series("Zero-shot throughput", "clients", "images/s", list(clients), lines))
    return found


def _asks(files: Iterator[bytes], labels: tuple[str, ...]) -> Iterator[Ask]:
    """Every image is new: what the server remembers of images is not measured."""
    return (asking.classify(file, labels, clip_b32.MODEL) for file in files)


def _tower(tower: bare.Runner, pixels: npt.NDArray[np.float32], _: int) -> object:
    return tower.infer({"pixels": pixels})
