"""Windows: samples of any depth -> uint8, by the formulas of MedSAM's `pre_CT_MR.py`.

A window becomes a `Span` (the sample values of black and white); `stretch` maps the span to 0..255 and truncates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.image import LinearWindow, PercentileWindow, RangeWindow, Window
from serving.imaging.levels import Levels, Population, pointwise

Samples = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

DEFAULT = PercentileWindow(0.5, 99.5, nonzero=True)
"""For samples deeper than 8 bits, and for volumes, whose file and request name no window."""


@dataclass(frozen=True)
class Span:
    """`low` becomes 0, `high` becomes 255, in the samples' own units; values outside are clipped.

    Where they are equal nothing can be stretched: values below or at `low` become 0, those above 255.
    """

    low: float
    high: float


def span(window: Window, population: Population) -> Span:
    """The span of a window. `population`: the samples that percentiles and extremes are taken of.

    Linear: center - width / 2 to center + width / 2, whatever the samples. Percentile: of the samples above 0 with
    `nonzero`, which leaves zeros black. Range: the extremes of the population where not given.
    """
    match window:
        case LinearWindow(center, width):
            return Span(center - width / 2, center + width / 2)
        case PercentileWindow(low, high, nonzero):
            first, second = population.percentiles(low, high, positive=nonzero)
            # One positive value alone (a label map): show it white, as zeros stay black.
            return Span(0.0, second) if nonzero and 0 < second <= first else Span(first, second)
        case RangeWindow(minimum, maximum):
            smallest, largest = population.extent()
            return Span(smallest if minimum is None else minimum, largest if maximum is None else maximum)


def stretch(samples: Samples, within: Span) -> Bytes:
    """Real samples of any shape -> uint8 of that shape: clip, stretch in float64, truncate. NaN becomes 0."""
    return pointwise(samples, lambda values: _stretch(values, within))


def apply(samples: Samples, window: Window, population: Levels | None = None) -> Bytes:
    """Samples (rows, columns) or (rows, columns, 3), any real dtype -> uint8 of that shape, 0..255.

    `population`: what percentiles and extremes are taken of, a whole volume for its slice; else the samples themselves.
    """
    return stretch(samples, span(window, Levels.of(samples) if population is None else population))


def _stretch(values: Samples, within: Span) -> Bytes:
    if not within.high > within.low:
        return np.where(values > within.low, 255, 0).astype(np.uint8)
    clipped = np.clip(values.astype(np.float64), within.low, within.high)
    gray = (clipped - within.low) / (within.high - within.low) * 255.0
    if values.dtype.kind == "f":
        gray = np.nan_to_num(gray, copy=False, nan=0.0)
    return gray.astype(np.uint8)
