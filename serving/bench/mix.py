"""Mixed traffic of S4 and the soak: 70 % prompts, 20 % classification, 10 % new images, each with deadline and priority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from serving.bench import asking, load
from serving.bench.asking import Ask, Said
from serving.bench.bench import Bench
from serving.bench.load import Run
from serving.bench.pictures import endless, several
from serving.errors import SetupError

PROMPT = Said(1000, "interactive")
CLASSIFY = Said(2000, "bulk")
ENCODE = Said(5000, "bulk")
DEADLINES_S = {"prompt": 1.0, "classify": 2.0, "encode": 5.0}
SHARES = {"prompt": 0.7, "classify": 0.2, "encode": 0.1}
LABELS = ("pleural effusion", "cardiomegaly", "pneumothorax", "edema")
MODEL = "synthetic-cxr-clip"
CLOSED_WORKERS = 8
PATIENCE_MS = 60_000


class Mix:
    """Endless asks in the shares above, drawn with a seed. Every image that is sent is another: nothing is remembered of it.

    `patient`: with a deadline that nothing misses, so that a closed loop gets the whole mix answered.
    """

    def __init__(self, bench: Bench, patient: bool = False) -> None:
        prompt, classify, encode = (replace(s, deadline_ms=PATIENCE_MS) if patient else s for s in (PROMPT, CLASSIFY, ENCODE))
        self._prompts = [ask for known in bench.known for ask in known.asks(prompt)]
        self._classify = (asking.classify(file, LABELS, MODEL, classify) for file in endless(several(16, 700, 224)))
        self._encode = (asking.encode(file, encode) for file in endless(several(16, 800)))

    def asks(self, seed: int) -> Iterator[Ask]:
        """The stream of one seed."""
        rng = np.random.default_rng(seed)
        while True:
            for kind, place in zip(
                rng.choice(list(SHARES), 256, p=list(SHARES.values())), rng.integers(0, 1 << 30, 256), strict=True
            ):
                if kind == "prompt":
                    yield self._prompts[place % len(self._prompts)]
                elif kind == "classify":
                    yield next(self._classify)
                else:
                    yield next(self._encode)


def good(run: Run) -> float:
    """Answers a second that came within their deadlines."""
    return sum(s.seconds <= DEADLINES_S[s.kind] for s in run.of()) / run.seconds


def capacity(bench: Bench, seconds: float) -> float:
    """Requests a second of the whole mix that the server answers when it is kept busy, by workers that wait where it says so.

    Raises SetupError where some fail for good: what is refused is dear, and the rest would look like more.
    """
    mix = Mix(bench, patient=True)
    bench.say("finding the capacity of the mix")
    run = load.run(load.closed(bench.dial(), [mix.asks(100 + n) for n in range(CLOSED_WORKERS)], seconds, patient=True))
    if len(run.failed) > 0.02 * len(run.samples):
        kinds = Counter(f"{sample.kind} {sample.status} {sample.code}".strip() for sample in run.failed)
        most = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3))
        raise SetupError(f"{len(run.failed)} of {len(run.samples)} requests failed where the capacity was measured: {most}")
    return run.rate()
