"""Four masks -> the one that upstream takes, and logits -> a mask in the original frame."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

STABILITY_DELTA, STABILITY_LEAST = 0.05, 0.98
"""sam2's `build_sam.py`: `dynamic_multimask_stability_delta`, `..._thresh`."""
ABSENT = -1024.0
"""`NO_OBJ_SCORE`: the logits of an object that is not on the slice."""
HOLE_PX, HOLE_LOGIT = 8, 0.1
"""`fill_hole_area`: a hole of at most so many pixels of the low-resolution mask is filled with this logit."""


def steady(masks: Floats, ious: Floats) -> int:
    """Which of four masks (4, S, S), IoU (4,), answers one unambiguous prompt: the first if stable, else the best candidate.

    Stable: its areas at logits +0.05 and -0.05 differ by at most 2 % (`_dynamic_multimask_via_stability`).
    """
    outer = int((masks[0] > -STABILITY_DELTA).sum())
    inner = int((masks[0] > STABILITY_DELTA).sum())
    return 0 if not outer or inner / outer >= STABILITY_LEAST else best(ious)


def best(ious: Floats) -> int:
    """Which of the three candidates, counted from 1, has the greatest IoU of (4,)."""
    return 1 + int(np.argmax(ious[1:]))


def shown(logits: Floats, score: float) -> Floats:
    """The logits, or ABSENT everywhere where the presence score is not above 0."""
    return logits if score > 0 else np.full_like(logits, ABSENT)


def filled(logits: Floats) -> Floats:
    """Small holes of the mask (S, S) filled: components of at most HOLE_PX background pixels, eight neighbours each."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((logits <= 0).astype(np.uint8), connectivity=8)
    small = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] <= HOLE_PX) + 1 if count > 1 else np.zeros(0, np.int64)
    return np.where(np.isin(labels, small), np.float32(HOLE_LOGIT), logits) if small.size else logits


def binary_mask(logits: Floats, size_px: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(S, S) float32 logits -> (rows, columns) bool: stretched bilinearly to `size_px` (width, height), then above 0."""
    return np.asarray(cv2.resize(logits, size_px, interpolation=cv2.INTER_LINEAR)) > 0
