"""MedCLIP's answers: a logit for each finding over its set of sentences, and vectors of pictures or texts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from serving.domain.answer import Scores
from serving.domain.prompt import Labels
from serving.domain.request import Classify, Embed, Request
from serving.embeddings.vectors import Outcome, VectorStore
from serving.engines.engine import EngineSpec
from serving.errors import Fault, Kind
from serving.families.contrastive import Pictures, in_time, open_towers, option
from serving.families.contrastive_model import ContrastiveModel
from serving.families.family import Family, Tools
from serving.families.labels import MAX_SENTENCES, Vectors, check_sentences, fill
from serving.families.medclip import engines, sentences
from serving.families.medclip.postprocess import SCORING, logits
from serving.families.medclip.preprocess import PREPROCESSING_ID, PROCESSOR, prepare
from serving.manifest import Manifest
from serving.telemetry.stages import Stages

PADDING = "longest of the class"
"""A sentence's vector depends on how far it was padded: as far as the longest sentence of its class, as published."""
CLASSES_BYTES = 64 * 1024 * 1024
"""For the vectors of the classes' sentences."""


class MedClip(ContrastiveModel):
    """One served MedCLIP."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        self._towers = open_towers(manifest, tools, engines.specs, padding="call")[0]
        self._logit_scale = float(option(manifest, "logit_scale"))
        self._ensemble = str(option(manifest, "ensemble"))
        drawn = sentences.drawn(int(option(manifest, "sentences")), int(option(manifest, "seed")))
        self._published = {name.casefold(): texts for name, texts in drawn.items()}
        self._classes = VectorStore(CLASSES_BYTES, math.inf)
        side_px, way = int(option(manifest, "image_size")), str(manifest.options.get("preprocessing", PROCESSOR))
        prepared = partial(prepare, side_px=side_px, way=way)
        super().__init__(manifest, Pictures((self._towers,), prepared, f"{PREPROCESSING_ID}:{way}:{side_px}", tools))

    async def _classify(self, task: Classify, request: Request, stages: Stages) -> tuple[Scores, Outcome]:
        classes = self._sentences(task.labels)
        images, features = await self._pictures.vectors(task.images, request, stages)
        vectors = [await self._class(texts, request, stages) for texts in classes]
        with stages.measure("postprocess"):
            values = logits(images[:, 0], vectors, self._logit_scale, self._ensemble)
        return Scores(task.labels.names, values, SCORING[self._ensemble]), features

    def _sentences(self, labels: Labels) -> list[tuple[str, ...]]:
        """The sentences of each label: its templates', else the published ones, else the label itself. Raises Fault."""
        if labels.negatives:
            raise Fault(Kind.INVALID, "this model has no negative templates: leave them out", param="negative_templates")
        check_sentences(len(labels.names), len(labels.templates))
        if labels.templates:
            return [tuple(fill(template, name) for template in labels.templates) for name in labels.names]
        return [self._published.get(name.casefold(), (name,)) for name in labels.names]

    async def _class(self, texts: Sequence[str], request: Request, stages: Stages) -> Vectors:
        """(sentences, D) unit vectors, read-only, made once for all who ask for the class."""
        named = json.dumps([self._towers.digest, PADDING, self._towers.context_length, texts])
        key = hashlib.sha256(named.encode()).hexdigest()
        found, _ = await in_time(request, self._classes.get_or_make(key, partial(self._towers.texts, texts, request, stages)))
        return found


class Declaration:
    """What MedCLIP is before any of its engines is built."""

    name = "medclip"
    pool = "contrastive"
    tasks: frozenset[type] = frozenset({Classify, Embed})

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: image_encoder, text_encoder."""
        return engines.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where the record lacks an option."""
        return MedClip(manifest, tools)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Side in pixels, tokens in a text, sentences in a call; how many published sentences a finding has, which, and how
        they are taken together."""
        return {
            "image_side_px": option(manifest, "image_size"),
            "context_length": option(manifest, "context_length"),
            "max_sentences": MAX_SENTENCES,
            "sentences": option(manifest, "sentences"),
            "seed": option(manifest, "seed"),
            "ensemble": option(manifest, "ensemble"),
            "labels": [*sentences.CHEXPERT, *sentences.COVID, *sentences.RSNA],
        }


DECLARATION = Declaration()
