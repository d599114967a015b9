"""Hounsfield units -> 0..1, piecewise linear (openmedlab/MedLSAM, `img_multi_thresh_normalized`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

KNOTS_HU = (-1000.0, -200.0, 200.0, 1500.0)
LEVELS = (0.0, 0.2, 0.8, 1.0)
NORMALISED_ABOVE = -10.0
"""A volume with nothing below this is taken as normalised already, as upstream has it."""


def normalised(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Any shape, HU -> float32 in 0..1; below the first knot 0, above the last 1; as it is where it is normalised already."""
    if values.size and float(values.min()) >= NORMALISED_ABOVE:
        return values.astype(np.float32)
    return np.interp(values, KNOTS_HU, LEVELS).astype(np.float32)
