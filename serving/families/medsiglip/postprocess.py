"""Unit vectors -> SigLIP's scores: a probability for each pair of picture and label, none depending on another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SCORING = "siglip-sigmoid"


def scores(
    images: npt.NDArray[np.float32], labels: npt.NDArray[np.float32], logit_scale: float, logit_bias: float
) -> npt.NDArray[np.float32]:
    """(n, D) and (k, D) unit vectors -> (n, k) float32 in 0..1, sigmoid(scale x cosine + bias).

    `logit_scale`: the factor itself, the exponential of the checkpoint's parameter.
    """
    logits = np.float64(logit_scale) * (images.astype(np.float64) @ labels.astype(np.float64).T) + logit_bias
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
