"""Unit vectors -> CLIP's scores: softmax over the labels of the scaled cosines."""

from __future__ import annotations

from serving.families.zero_shot import softmax_scores as scores

__all__ = ["SCORING", "scores"]

SCORING = "clip-softmax"
