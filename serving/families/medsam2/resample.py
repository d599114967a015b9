"""Linear resampling with antialiasing, as PyTorch's `interpolate(mode="bilinear", antialias=True)`, by one matrix an axis."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt


@lru_cache(maxsize=16)
def antialiased(made: int, given: int) -> npt.NDArray[np.float32]:
    """(made, given) float32: weights by which `given` samples become `made`; each row sums to 1.

    A triangle as wide as one made sample on each side, or as one given sample where that is more.
    """
    scale = given / made
    support = max(scale, 1.0)
    centre = (np.arange(made)[:, None] + 0.5) * scale
    sample = np.arange(given)[None]
    inside = (sample >= np.floor(centre - support + 0.5)) & (sample < np.floor(centre + support + 0.5))
    weights = np.where(inside, np.clip(1 - np.abs((sample + 0.5 - centre) / support), 0, None), 0)
    found: npt.NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return found
