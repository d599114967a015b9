"""CheXzero's answers: one probability a finding, the mean over the checkpoints of the model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from serving.domain.answer import Scores
from serving.domain.prompt import Labels
from serving.domain.request import Classify, Embed, Request
from serving.embeddings.vectors import Outcome
from serving.engines.engine import EngineSpec
from serving.errors import Fault, Kind
from serving.families.chexzero import engines
from serving.families.chexzero.postprocess import SCORING, ensemble, pair_probabilities
from serving.families.chexzero.preprocess import PREPROCESSING_ID, prepare
from serving.families.contrastive import Pictures, open_towers, option
from serving.families.contrastive_model import ContrastiveModel
from serving.families.family import Family, Tools
from serving.families.labels import MAX_SENTENCES, check_sentences
from serving.manifest import Manifest
from serving.telemetry.stages import Stages

DEFAULT_TEMPLATES, DEFAULT_NEGATIVES = ("{}",), ("no {}",)
"""As published."""


class CheXzero(ContrastiveModel):
    """One served CheXzero: one pair of towers or an ensemble of them."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        self._towers = open_towers(manifest, tools, engines.specs)
        letterbox_px, side_px = int(option(manifest, "letterbox")), int(option(manifest, "image_size"))
        prepared = partial(prepare, letterbox_px=letterbox_px, side_px=side_px)
        name = f"{PREPROCESSING_ID}:{letterbox_px}:{side_px}"
        super().__init__(manifest, Pictures(self._towers, prepared, name, tools))

    async def _classify(self, task: Classify, request: Request, stages: Stages) -> tuple[Scores, Outcome]:
        names, sets = task.labels.names, _templates(task.labels, self._manifest)
        check_sentences(len(names), len(sets[0]))
        images, features = await self._pictures.vectors(task.images, request, stages)
        sentences = [await towers.labels(names, sets, request, stages) for towers in self._towers]
        with stages.measure("postprocess"):
            each = [pair_probabilities(images[:, number], pairs) for number, pairs in enumerate(sentences)]
            return Scores(names, ensemble(each), SCORING), features


def _templates(labels: Labels, manifest: Manifest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Positive and negative templates: the request's, else the record's, else the published pair."""
    if not labels.templates:
        options = manifest.options
        return tuple(options.get("templates", DEFAULT_TEMPLATES)), tuple(options.get("negatives", DEFAULT_NEGATIVES))
    if not labels.negatives:
        raise Fault(
            Kind.INVALID,
            "this model scores pairs: send a negative template such as 'no {}' for each template",
            param="negative_templates",
        )
    return labels.templates, labels.negatives


class Declaration:
    """What CheXzero is before any of its engines is built."""

    name = "chexzero"
    pool = "contrastive"
    tasks: frozenset[type] = frozenset({Classify, Embed})

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: image_encoder, text_encoder; each checkpoint of an ensemble is a version of both."""
        return engines.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where the record lacks an option or an encoder."""
        return CheXzero(manifest, tools)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Sides in pixels, tokens in a text, sentences a call, the templates by default and the size of the ensemble."""
        return {
            "image_side_px": option(manifest, "image_size"),
            "letterbox_px": option(manifest, "letterbox"),
            "context_length": option(manifest, "context_length"),
            "max_sentences": MAX_SENTENCES,
            "templates": list(manifest.options.get("templates", DEFAULT_TEMPLATES)),
            "negatives": list(manifest.options.get("negatives", DEFAULT_NEGATIVES)),
            "checkpoints": len(manifest.engines.get("image_encoder", ())),
        }


DECLARATION = Declaration()
