"""MedSigLIP's answers: a probability for each label by itself, and vectors of pictures or texts."""

from __future__ import annotations

from functools import partial

from serving.families.contrastive import Prepare, option
from serving.families.medsiglip.engines import specs
from serving.families.medsiglip.postprocess import SCORING, scores
from serving.families.medsiglip.preprocess import CONTAINER, PREPROCESSING_ID, prepare
from serving.families.zero_shot import Procedure, Score, ZeroShotDeclaration
from serving.manifest import Manifest

DEFAULT_TEMPLATES = ("{}",)
"""The published examples ask in the user's own words."""


def _prepare(manifest: Manifest) -> tuple[Prepare, str]:
    side_px, way = int(option(manifest, "image_size")), str(manifest.options.get("preprocessing", CONTAINER))
    return partial(prepare, side_px=side_px, way=way), f"{PREPROCESSING_ID}:{way}:{side_px}"


def _score(manifest: Manifest) -> Score:
    scale, bias = float(option(manifest, "logit_scale")), float(option(manifest, "logit_bias"))
    return partial(scores, logit_scale=scale, logit_bias=bias)


DECLARATION = ZeroShotDeclaration("medsiglip", Procedure(specs, _prepare, _score, SCORING, DEFAULT_TEMPLATES, padding="whole"))
"""What MedSigLIP is before any of its engines is built. Its text tower reads the last position: padding is part of a text."""
