"""`python -m serving.bench.decoders`: what a prompt costs on LiteMedSAM's two decoding graphs, by its number of tokens.

The built engines bare, in one process, interleaved: CPU milliseconds of all threads, which other work on the machine changes
least. Where the columns cross is `families.sam_engines.FOLDED_TOKENS`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from serving.bench import bare
from serving.settings import load

PARTS = ("mask_decoder", "mask_refiner")
FEATURES = {"x0": (1, 4096, 256), "k0": (1, 8, 16, 4096), "v0": (1, 8, 4096, 16), "q0": (1, 8, 4096, 16)}
TOKENS = (2, 8, 16, 24, 28, 30, 32, 48, 66)
ROUNDS = 9


def measure(repository: Path, objects: int, tokens: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Part -> median CPU milliseconds of a call with so many objects of so many tokens, one mask each."""
    draw = np.random.default_rng(tokens)
    records = bare.read_record(repository, "litemedsam")["engines"]
    engines = {part: bare.open_engine(repository, records[part][0], outputs=bare.ONE_MASK) for part in PARTS}
    given: bare.Arrays = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in FEATURES.items()}
    given["points"] = draw.uniform(60, 190, (1, objects, tokens, 2)).astype(np.float32)
    given["labels"] = draw.integers(0, 2, (1, objects, tokens))
    given["logits"] = np.zeros((1, objects, 1, 256, 256), np.float32)
    given["earlier"] = np.zeros((1, objects), np.float32)
    spent: dict[str, list[float]] = {part: [] for part in PARTS}
    for number in range(rounds + 1):
        for part, engine in engines.items():
            start = time.process_time()
            engine.infer(given)
            if number:  # the first call of a shape prepares it
                spent[part].append(1e3 * (time.process_time() - start))
    return {part: median(each) for part, each in spent.items()}


def main() -> None:
    """A line for each number of tokens. One argument: objects in a call (1)."""
    objects = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    for tokens in TOKENS:
        found = measure(load().repository.path, objects, tokens)
        print(tokens, *(f"{part} {spent:.0f} ms" for part, spent in found.items()), sep="  ", flush=True)


if __name__ == "__main__":
    main()
