"""CLIP's answers: zero-shot classification by softmax over the labels, and vectors of pictures or texts."""

from __future__ import annotations

from functools import partial

from serving.families.clip.engines import specs
from serving.families.clip.postprocess import SCORING, scores
from serving.families.clip.preprocess import PREPROCESSING_ID, prepare
from serving.families.contrastive import Prepare, option
from serving.families.zero_shot import Procedure, Score, ZeroShotDeclaration
from serving.manifest import Manifest

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""OpenAI's own, where neither the request nor the model's record names templates."""


def _prepare(manifest: Manifest) -> tuple[Prepare, str]:
    side_px = int(option(manifest, "image_size"))
    return partial(prepare, side_px=side_px), f"{PREPROCESSING_ID}:{side_px}"


def _score(manifest: Manifest) -> Score:
    return partial(scores, logit_scale=float(option(manifest, "logit_scale")))


DECLARATION = ZeroShotDeclaration("clip", Procedure(specs, _prepare, _score, SCORING, DEFAULT_TEMPLATES))
"""What CLIP is before any of its engines is built."""
