"""Percentiles of a volume whose samples are too wide for a table of all values: exact, and without a copy of the volume.

A radix selection (Knuth, The Art of Computer Programming 3, 5.2.5): samples become unsigned integers of the same order, whose
digits of 16 bits are counted from the highest down, each time only below the digits that are known already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]
_CHUNK = 1 << 20
_DIGIT = 16


class Ordered:
    """What `window.span` asks of a population, of the values of stored samples. `values`: pointwise, for a chunk at a time."""

    def __init__(self, samples: Samples, values: Callable[[Samples], Samples]) -> None:
        self._samples = samples.ravel(order="K")
        self._values = values

    def extent(self) -> tuple[float, float]:
        """Smallest and largest finite value; (0, 0) of nothing."""
        ends = [(float(chunk.min()), float(chunk.max())) for chunk in self._chunks(False) if chunk.size]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (0.0, 0.0)

    def percentiles(self, low: float, high: float, *, positive: bool) -> tuple[float, float]:
        """Two percentiles (0..100) with linear interpolation, as numpy.percentile takes them: see `Levels.percentiles`."""
        count = sum(chunk.size for chunk in self._chunks(positive))
        if not count and positive:
            return self.percentiles(low, high, positive=False)
        if not count:
            return 0.0, 0.0
        places = [percent / 100 * (count - 1) for percent in (low, high)]
        ranks = [min(int(place) + step, count - 1) for place in places for step in (0, 1)]
        found = self._select(ranks, positive)
        first, second = (a + (b - a) * (p - int(p)) for a, b, p in zip(found[::2], found[1::2], places, strict=True))
        return first, second

    def _chunks(self, positive: bool) -> Iterator[Samples]:
        """The finite values, those above 0 alone with `positive`, a piece at a time."""
        for start in range(0, self._samples.size, _CHUNK):
            chunk = self._values(self._samples[start : start + _CHUNK])
            if chunk.dtype.kind == "f":
                chunk = chunk[np.isfinite(chunk)]
            yield chunk[chunk > 0] if positive else chunk

    def _select(self, ranks: Sequence[int], positive: bool) -> list[float]:
        """The values that stand at these places of the sorted ones."""
        dtype = self._values(self._samples[:1]).dtype
        left, known = list(ranks), [0] * len(ranks)
        for shift in range(8 * dtype.itemsize - _DIGIT, -1, -_DIGIT):
            counts = {prefix: np.zeros(1 << _DIGIT, np.int64) for prefix in set(known)}
            for chunk in self._chunks(positive):
                digits = _keys(chunk) >> np.uint64(shift)
                above = digits >> np.uint64(_DIGIT)
                for prefix, count in counts.items():
                    chosen = (digits[above == np.uint64(prefix)] & np.uint64(0xFFFF)).astype(np.int64)
                    count += np.bincount(chosen, minlength=1 << _DIGIT)
            for n, prefix in enumerate(known):
                below = np.cumsum(counts[prefix])
                digit = int(np.searchsorted(below, left[n], side="right"))
                left[n] -= int(below[digit - 1]) if digit else 0
                known[n] = prefix << _DIGIT | digit
        return [_value(key, dtype) for key in known]


def _keys(values: Samples) -> npt.NDArray[np.uint64]:
    """Values -> unsigned integers of their own width and of the same order, as uint64."""
    bits = 8 * values.dtype.itemsize
    raw = values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
    if values.dtype.kind == "u":
        return raw
    sign = np.uint64(1 << (bits - 1))
    if values.dtype.kind == "i":
        return raw ^ sign
    # IEEE 754: negative numbers grow with their bits, so all of theirs are turned; of the others the sign alone.
    return np.where(raw & sign, ~raw & np.uint64((1 << bits) - 1), raw | sign)


def _value(key: int, dtype: np.dtype[Any]) -> float:
    """The value of a key."""
    bits = 8 * dtype.itemsize
    sign, mask = 1 << (bits - 1), (1 << bits) - 1
    if dtype.kind == "i":
        key ^= sign
    elif dtype.kind == "f":
        key = key ^ sign if key & sign else ~key & mask
    return float(np.array([key], f"u{dtype.itemsize}").view(dtype)[0])
