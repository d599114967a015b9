"""CLIP's answers: zero-shot classification by softmax over the labels, and vectors of pictures or texts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from serving.domain.answer import Answer, Embeddings, Scores
from serving.domain.request import Classify, Embed, Request
from serving.engines.engine import EngineSpec
from serving.errors import Fault, Kind
from serving.families.clip import engines
from serving.families.clip.postprocess import SCORING, scores
from serving.families.clip.preprocess import PREPROCESSING_ID, prepare
from serving.families.contrastive import Pictures, embed, open_towers, option
from serving.families.family import Family, Tools
from serving.families.labels import MAX_SENTENCES, check_sentences
from serving.manifest import Manifest
from serving.telemetry.stages import Stages

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""OpenAI's own, where neither the request nor the model's record names templates."""


class Clip:
    """One served CLIP."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        self._manifest = manifest
        self._info = manifest.info()
        self._towers = open_towers(manifest, tools, engines.specs)[0]
        self._templates = tuple(manifest.options.get("templates", DEFAULT_TEMPLATES))
        self._logit_scale = float(option(manifest, "logit_scale"))
        side_px = int(option(manifest, "image_size"))
        self._pictures = Pictures((self._towers,), partial(prepare, side_px=side_px), f"{PREPROCESSING_ID}:{side_px}", tools)

    @property
    def manifest(self) -> Manifest:
        """The built model behind it."""
        return self._manifest

    async def answer(self, request: Request, stages: Stages) -> Answer:
        """Scores for Classify, vectors for Embed. Raises Fault."""
        result: Scores | Embeddings
        match request.task:
            case Classify() as task:
                result, features = await self._classify(task, request, stages)
            case Embed() as task:
                result, features = await embed(task, self._pictures, request, stages)
            case _:
                raise Fault(Kind.INVALID, f"{self._manifest.model} takes labels or texts, not visual prompts", param="model")
        return Answer(result, self._info, stages.seconds, features)

    async def _classify(self, task: Classify, request: Request, stages: Stages) -> tuple[Scores, str]:
        if task.labels.negatives:
            raise Fault(Kind.INVALID, "this model has no negative templates: leave them out", param="negative_templates")
        templates = task.labels.templates or self._templates
        check_sentences(len(task.labels.names), len(templates))
        images, features = await self._pictures.vectors(task.images, request, stages)
        labels = await self._towers.labels(task.labels.names, (templates,), request, stages)
        with stages.measure("postprocess"):
            values = scores(images[:, 0], labels, self._logit_scale)
        return Scores(task.labels.names, values, SCORING), features


class Declaration:
    """What CLIP is before any of its engines is built."""

    name = "clip"
    pool = "contrastive"
    tasks: frozenset[type] = frozenset({Classify, Embed})

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: image_encoder, text_encoder."""
        return engines.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where the record lacks an option."""
        return Clip(manifest, tools)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Side in pixels, tokens in a text, sentences (labels times templates) in a call, and the templates by default."""
        return {
            "image_side_px": option(manifest, "image_size"),
            "context_length": option(manifest, "context_length"),
            "max_sentences": MAX_SENTENCES,
            "templates": list(manifest.options.get("templates", DEFAULT_TEMPLATES)),
        }


DECLARATION = Declaration()
