"""The sample values of a picture or volume with how often each occurs: percentiles without sorting millions of samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_CHUNK = 1 << 22


class Population(Protocol):
    """What windows are taken of."""

    def extent(self) -> tuple[float, float]:
        """Smallest and largest value; (0, 0) of nothing."""
        ...

    def percentiles(self, low: float, high: float, *, positive: bool) -> tuple[float, float]:
        """Two percentiles (0..100) with linear interpolation, of the values above 0 with `positive`, if there are any."""
        ...


@dataclass(frozen=True)
class Levels:
    """`values`: (n,) real, finite. `counts`: (n,) int64, how often each occurs, or None where each stands for itself."""

    values: Samples
    counts: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, samples: Samples) -> Levels:
        """Of an array of any shape: a histogram for integers of 16 bits at most, the finite samples themselves otherwise."""
        flat = samples.ravel(order="K")
        if is_narrow(samples):
            counts = _histogram(flat)
            lowest = int(np.iinfo(samples.dtype).min)
            present = np.flatnonzero(counts)
            return cls(present + lowest, counts[present])
        return cls(flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat)

    def without(self, unwanted: Callable[[Samples], npt.NDArray[np.bool_]]) -> Levels:
        """These levels less those whose value is unwanted."""
        keep = ~unwanted(self.values)
        return Levels(self.values[keep], None if self.counts is None else self.counts[keep])

    def mapped(self, function: Callable[[Samples], Samples]) -> Levels:
        """The levels of the samples after a pointwise function."""
        return Levels(function(self.values), self.counts)

    def extent(self) -> tuple[float, float]:
        """Smallest and largest value; (0, 0) of nothing."""
        return (float(self.values.min()), float(self.values.max())) if self.values.size else (0.0, 0.0)

    def percentiles(self, low: float, high: float, *, positive: bool) -> tuple[float, float]:
        """Two percentiles (0..100) with linear interpolation, as numpy.percentile takes them.

        `positive`: of the values above 0 only; of all values where there are none above 0.
        """
        chosen = self.without(lambda values: values <= 0) if positive else self
        if not chosen.values.size:
            chosen = self
        if not chosen.values.size:
            return 0.0, 0.0
        if chosen.counts is None:
            first, second = np.percentile(chosen.values, [low, high])
            return float(first), float(second)
        order = np.argsort(chosen.values, kind="stable")
        values, below = chosen.values[order].astype(np.float64), np.cumsum(chosen.counts[order])
        return _at(values, below, low), _at(values, below, high)


def is_narrow(samples: Samples) -> bool:
    """Whether samples are integers of 16 bits at most, so that a table holds every value."""
    return samples.dtype.kind in "ui" and samples.dtype.itemsize <= 2


def pointwise(samples: Samples, function: Callable[[Samples], Samples]) -> Samples:
    """`function` of every sample, through a table where the samples are narrow integers and many."""
    if not is_narrow(samples) or samples.size < 1 << 14:
        return function(samples)
    lowest, highest = int(samples.min()), int(samples.max())
    table = function(np.arange(lowest, highest + 1))
    if lowest >= 0:
        padded = np.zeros(highest + 1, table.dtype)
        padded[lowest:] = table
        return np.take(padded, samples)
    return np.take(table, samples.astype(np.int32) - lowest)


def _histogram(flat: Samples) -> npt.NDArray[np.int64]:
    """Counts of every value that the dtype has, from its lowest up."""
    size = 1 << (8 * flat.dtype.itemsize)
    unsigned = flat.astype(flat.dtype.newbyteorder("="), copy=False).view(f"u{flat.dtype.itemsize}")
    counts = np.zeros(size, np.int64)
    for start in range(0, unsigned.size, _CHUNK):
        counts += np.bincount(unsigned[start : start + _CHUNK], minlength=size)
    return np.roll(counts, size // 2) if flat.dtype.kind == "i" else counts


def _at(values: Floats, below: npt.NDArray[np.int64], percent: float) -> float:
    """The percentile of sorted values whose cumulative counts are `below` (numpy's method "linear")."""
    position = percent / 100 * (int(below[-1]) - 1)
    index = int(np.floor(position))
    here = values[np.searchsorted(below, index, side="right")]
    there = values[np.searchsorted(below, min(index + 1, int(below[-1]) - 1), side="right")]
    part = position - index
    return float(there - (there - here) * (1 - part) if part >= 0.5 else here + (there - here) * part)
