"""Unit vectors -> CLIP's scores: softmax over the labels of the scaled cosines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SCORING = "clip-softmax"


def scores(images: npt.NDArray[np.float32], labels: npt.NDArray[np.float32], logit_scale: float) -> npt.NDArray[np.float32]:
    """(n, D) and (k, D) unit vectors -> (n, k) float32, rows that sum to 1.

    `logit_scale`: the factor itself (100 for OpenAI's checkpoints), the exponential of the checkpoint's parameter.
    """
    logits = np.float64(logit_scale) * (images.astype(np.float64) @ labels.astype(np.float64).T)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
