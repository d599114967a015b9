"""BiomedCLIP's answers: softmax over the labels, each in the published sentence."""

from __future__ import annotations

from functools import partial

from serving.families.biomedclip.engines import specs
from serving.families.centre_crop import prepare
from serving.families.contrastive import Prepare, option
from serving.families.zero_shot import Procedure, Score, ZeroShotDeclaration, softmax_scores
from serving.manifest import Manifest

DEFAULT_TEMPLATES = ("this is a photo of {}",)
"""As in the model card's example."""
SCORING = "clip-softmax"
PREPROCESSING_ID = "biomedclip/1"
"""Changes whenever the same picture gives other numbers."""


def _prepare(manifest: Manifest) -> tuple[Prepare, str]:
    side_px = int(option(manifest, "image_size"))
    return partial(prepare, side_px=side_px), f"{PREPROCESSING_ID}:{side_px}"


def _score(manifest: Manifest) -> Score:
    return partial(softmax_scores, logit_scale=float(option(manifest, "logit_scale")))


DECLARATION = ZeroShotDeclaration("biomedclip", Procedure(specs, _prepare, _score, SCORING, DEFAULT_TEMPLATES))
"""What BiomedCLIP is before any of its engines is built. Nothing attends to padding, so that cutting it off is exact."""
