"""The procedure that CLIP, BiomedCLIP and MedSigLIP share: a picture against one vector a label.

A family states how it prepares pixels, how cosines become scores and how its text tower takes padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.answer import Scores
from serving.domain.request import Classify, Embed, Request
from serving.embeddings.vectors import Outcome
from serving.engines.engine import EngineSpec
from serving.errors import Fault, Kind
from serving.families.contrastive import Padding, Pictures, Prepare, open_towers, option
from serving.families.contrastive_model import ContrastiveModel
from serving.families.family import Family, Tools
from serving.families.labels import MAX_SENTENCES, check_sentences
from serving.manifest import Manifest
from serving.telemetry.stages import Stages

Vectors = npt.NDArray[np.float32]
Score = Callable[[Vectors, Vectors], Vectors]
"""(n, D) and (k, D) unit vectors of pictures and labels -> (n, k) float32 scores."""


@dataclass(frozen=True)
class Procedure:
    """What tells such a family from another.

    `specs`: of its engines. `prepare`: the preprocessing of a built model and the name that changes with its numbers. `score`:
    a built model's way from vectors to scores, which `scoring` names. `templates`: where neither the request nor the record
    has any.
    """

    specs: Callable[[Manifest], Mapping[str, EngineSpec]]
    prepare: Callable[[Manifest], tuple[Prepare, str]]
    score: Callable[[Manifest], Score]
    scoring: str
    templates: tuple[str, ...]
    padding: Padding = "cut"


class ZeroShot(ContrastiveModel):
    """One served model."""

    def __init__(self, manifest: Manifest, tools: Tools, procedure: Procedure) -> None:
        self._procedure = procedure
        self._towers = open_towers(manifest, tools, procedure.specs, padding=procedure.padding)[0]
        self._templates = templates_of(manifest, procedure)
        self._score = procedure.score(manifest)
        prepare, name = procedure.prepare(manifest)
        super().__init__(manifest, Pictures((self._towers,), prepare, name, tools))

    async def _classify(self, task: Classify, request: Request, stages: Stages) -> tuple[Scores, Outcome]:
        if task.labels.negatives:
            raise Fault(Kind.INVALID, "this model has no negative templates: leave them out", param="negative_templates")
        templates = task.labels.templates or self._templates
        check_sentences(len(task.labels.names), len(templates))
        images, features = await self._pictures.vectors(task.images, request, stages)
        labels = await self._towers.labels(task.labels.names, (templates,), request, stages)
        with stages.measure("postprocess"):
            values = self._score(images[:, 0], labels)
        return Scores(task.labels.names, values, self._procedure.scoring), features


@dataclass
class ZeroShotDeclaration:
    """What such a family is before any of its engines is built."""

    name: str
    procedure: Procedure
    pool: str = "contrastive"
    tasks: frozenset[type] = frozenset({Classify, Embed})

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: image_encoder, text_encoder."""
        return self.procedure.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where the record lacks an option."""
        return ZeroShot(manifest, tools, self.procedure)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Side in pixels, tokens in a text, sentences (labels times templates) in a call, and the templates by default."""
        return {
            "image_side_px": option(manifest, "image_size"),
            "context_length": option(manifest, "context_length"),
            "max_sentences": MAX_SENTENCES,
            "templates": list(templates_of(manifest, self.procedure)),
        }


def templates_of(manifest: Manifest, procedure: Procedure) -> tuple[str, ...]:
    """The record's templates, else the family's own."""
    return tuple(manifest.options.get("templates", procedure.templates))


def softmax_scores(images: Vectors, labels: Vectors, logit_scale: float) -> Vectors:
    """(n, D) and (k, D) unit vectors -> (n, k) float32, rows that sum to 1.

    `logit_scale`: the factor itself (100 for OpenAI's checkpoints), the exponential of the checkpoint's parameter.
    """
    logits = np.float64(logit_scale) * (images.astype(np.float64) @ labels.astype(np.float64).T)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
