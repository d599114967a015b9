"""Unit vectors -> CheXzero's probabilities: a positive against a negative sentence, and the mean over checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SCORING = "chexzero-pair"


def pair_probabilities(images: npt.NDArray[np.float32], sentences: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n, D) and (2k, D) unit vectors, k positive sentences and then their negatives -> (n, k) float32.

    exp(cos+) / (exp(cos+) + exp(cos-)), as published without CLIP's temperature: values stay within 0.12..0.88 and rank,
    they do not calibrate.
    """
    for_it, against = np.split(np.exp(images @ sentences.T), 2, axis=1)
    return np.asarray(for_it / (for_it + against), np.float32)


def ensemble(probabilities: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The mean of the checkpoints' probabilities, (n, k) float32."""
    return np.asarray(np.mean(np.stack(probabilities), axis=0), np.float32)
