"""Does an engine still answer as it did when it was built?

An engine's version folder holds `selfcheck.npz`: `seed` and for each input its shape, dtype and range, from which both
sides make the same input; and for each output a strided sample of what the built engine answered. Features that an engine
reads are not among its inputs: they are what the model's encoder makes of its own self-check's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FILE = "selfcheck.npz"
SAMPLES = 512
Input = tuple[str, str, Sequence[int], float, float]
"""Name, dtype, shape, least and greatest value."""

COSINE, SCALE = 0.998, 0.02
"""Least cosine to the stored outputs, and largest difference of their norms: another processor may round otherwise."""


def draw(inputs: Sequence[Input], seed: int = 0) -> dict[str, Any]:
    """Name -> array, uniform within each input's range; integers up to and without its end."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, dtype, shape, low, high in inputs:
        integral = np.issubdtype(np.dtype(dtype), np.integer)
        values = rng.integers(int(low), int(high), shape) if integral else rng.uniform(low, high, shape)
        made[name] = values.astype(dtype)
    return made


def sample(value: Any) -> Any:
    """At most SAMPLES values of an output, float32, spread over all of it."""
    flat = np.asarray(value, np.float32).ravel()
    return flat[:: max(len(flat) // SAMPLES, 1)][:SAMPLES].copy()


def save(path: Any, inputs: Sequence[Input], outputs: Mapping[str, Any], seed: int = 0) -> None:
    """Write what `load` reads. `inputs` as for `draw`; `outputs`: name -> array that the engine gave for them."""
    names, dtypes, shapes, lows, highs = zip(*inputs, strict=True)
    arrays = {f"out_{name}": sample(value) for name, value in outputs.items()}
    texts = [",".join(str(n) for n in shape) for shape in shapes]
    np.savez_compressed(path, seed=seed, names=names, dtypes=dtypes, shapes=texts, lows=lows, highs=highs, **arrays)


def load(path: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs to run: name -> array, outputs expected: name -> sample)."""
    with np.load(path, allow_pickle=False) as held:
        shapes = [tuple(int(n) for n in str(text).split(",")) for text in held["shapes"]]
        rows = zip(held["names"].tolist(), held["dtypes"].tolist(), shapes, held["lows"], held["highs"], strict=True)
        expected = {name.removeprefix("out_"): held[name] for name in held.files if name.startswith("out_")}
        return draw(list(rows), int(held["seed"])), expected


def matches(stored: Mapping[str, Any], got: Mapping[str, Any]) -> bool:
    """Whether samples agree: `stored` and `got` name -> array (`got` may be whole outputs). Never with a NaN or a name less."""
    return all(name in got and _close(value, sample(got[name])) for name, value in stored.items())


def _close(wanted: Any, found: Any) -> bool:
    if wanted.shape != found.shape or not np.isfinite(found).all():
        return False
    lengths = np.linalg.norm(wanted.astype(np.float64)), np.linalg.norm(found.astype(np.float64))
    if min(lengths) == 0:
        return bool(max(lengths) < 1e-6)
    cosine = float(wanted.astype(np.float64) @ found.astype(np.float64)) / (lengths[0] * lengths[1])
    return bool(cosine >= COSINE and abs(lengths[1] / lengths[0] - 1) <= SCALE)
