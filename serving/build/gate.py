"""The precision gate: an engine below float32 is deployed where its answers on real images agree with float32's.

Masks: mean and least IoU over at least 100 prompts whose float32 masks have 100 pixels or more in the original frame.
Embeddings: least cosine, and how often the best label stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from serving.families.litemedsam.postprocess import binary_mask

if TYPE_CHECKING:
    from serving.build.gate_set import Item

IOU_MEAN, IOU_LEAST = 0.99, 0.95
PROMPTS, MASK_PX = 100, 100
TOP1_AGREEMENT, EMBEDDINGS = 0.99, 20
COSINE = {"int8": 0.99}
COSINE_OTHERWISE = 0.999
"""Least cosine by precision: rounding to eight bits moves an embedding further than its ranking of labels can tell."""

Arrays = dict[str, npt.NDArray[Any]]
Engine = Callable[[Arrays], Arrays]
"""Inputs to outputs, both by name."""

Masks = list[npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Verdict:
    """`numbers`: what was measured; `kind`: "mask_iou" or "embedding"."""

    kind: str
    numbers: dict[str, float | int]
    passed: bool

    def record(self) -> dict[str, Any]:
        """As it is stored with the engine: ``{"kind": "mask_iou", "mean": 0.9931, ..., "passed": true}``."""
        return {"kind": self.kind, **self.numbers, "passed": self.passed}


def judge_masks(ious: Sequence[float]) -> Verdict:
    """Of all prompts' IoU with float32. Too few prompts prove nothing and fail."""
    mean, least = (float(np.mean(ious)), float(np.min(ious))) if len(ious) else (0.0, 0.0)
    passed = len(ious) >= PROMPTS and mean >= IOU_MEAN and least >= IOU_LEAST
    return Verdict("mask_iou", {"mean": round(mean, 5), "min": round(least, 5), "prompts": len(ious)}, passed)


def judge_embeddings(
    precision: str, wanted: npt.NDArray[np.float32], found: npt.NDArray[np.float32], labels: npt.NDArray[np.float32]
) -> Verdict:
    """`wanted` and `found` (N, D) of one tower at float32 and at `precision`; `labels` (L, D) what they are ranked against."""
    reference, candidate, classes = (_unit(rows) for rows in (wanted, found, labels))
    cosine = float((reference * candidate).sum(1).min())
    same = float(((reference @ classes.T).argmax(1) == (candidate @ classes.T).argmax(1)).mean())
    least = COSINE.get(precision, COSINE_OTHERWISE)
    passed = len(wanted) >= EMBEDDINGS and cosine >= least and same >= TOP1_AGREEMENT
    numbers = {"cosine_min": round(cosine, 6), "top1_agreement": round(same, 5), "items": len(wanted)}
    return Verdict("embedding", numbers, passed)


def iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Of two masks of one shape; 1 where both are empty."""
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0


def masks(item: Item, features: Arrays, decode: Engine) -> Masks:
    """One mask a prompt, in the original frame: of `mask`, whose last two axes are a prompt's logits."""
    logits = decode({**features, "points": item.points, "labels": item.labels})["mask"]
    maps = logits.reshape(-1, *logits.shape[-2:])
    return [binary_mask(one, item.given.content_px, item.size_px) for one in maps]


def compare(wanted: Iterable[Masks], found: Iterable[Masks]) -> Verdict:
    """Masks by image, of float32 and of a candidate. Stops at the first image that fails the candidate."""
    ious: list[float] = []
    for reference, candidate in zip(wanted, found, strict=False):
        ious += [iou(a, b) for a, b in zip(reference, candidate, strict=True) if a.sum() >= MASK_PX]
        if ious and min(ious) < IOU_LEAST:
            break
    return judge_masks(ious)


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
