"""Unit vectors -> MedCLIP's logits: a class is the mean, or the greatest, over its sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MEAN, MAX = "mean", "max"
ENSEMBLES = (MEAN, MAX)
SCORING = {MEAN: "medclip-logits-mean", MAX: "medclip-logits-max"}


def logits(
    images: npt.NDArray[np.float32], classes: Sequence[npt.NDArray[np.float32]], logit_scale: float, ensemble: str
) -> npt.NDArray[np.float32]:
    """(n, D) unit vectors and one (sentences, D) a class -> (n, classes) float32.

    `logit_scale`: the factor itself. The mean of the sentences' logits (`PromptClassifier(ensemble=True)`), not the logit of
    their mean vector made unit, or the greatest of them. Their order is MedCLIP's answer; a sigmoid of one is its estimate.
    """
    reduce = np.mean if ensemble == MEAN else np.max
    each = [reduce(np.float32(logit_scale) * (images @ sentences.T), axis=1) for sentences in classes]
    return np.asarray(np.stack(each, axis=1), np.float32)
