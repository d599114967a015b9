"""CheXzero's answers: one probability a finding, the mean over the checkpoints of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.answer import Answer, Embeddings, Scores
from serving.domain.prompt import Labels
from serving.domain.request import Classify, Embed, Request
from serving.engines.engine import EngineSpec
from serving.errors import Fault, Kind
from serving.families.chexzero import engines
from serving.families.chexzero.postprocess import SCORING, ensemble, pair_probabilities
from serving.families.chexzero.preprocess import prepare
from serving.families.contrastive import (
    MAX_SENTENCES,
    LabelCache,
    Prepare,
    Towers,
    check_sentences,
    embed,
    open_towers,
    option,
    pixels_of,
)
from serving.families.family import Family, Tools
from serving.manifest import Manifest
from serving.telemetry.stages import Stages

DEFAULT_TEMPLATES, DEFAULT_NEGATIVES = ("{}",), ("no {}",)
"""As published."""


class CheXzero:
    """One served CheXzero: one pair of towers or an ensemble of them."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        self._manifest = manifest
        self._info = manifest.info()
        self._tools = tools
        self._towers = open_towers(manifest, tools, engines.specs)
        self._cache = LabelCache()
        self._prepare: Prepare = partial(
            prepare, letterbox_px=int(option(manifest, "letterbox")), side_px=int(option(manifest, "image_size"))
        )

    @property
    def manifest(self) -> Manifest:
        """The built model behind it."""
        return self._manifest

    async def answer(self, request: Request, stages: Stages) -> Answer:
        """Scores for Classify; vectors of the first checkpoint for Embed. Raises Fault."""
        result: Scores | Embeddings
        match request.task:
            case Classify() as task:
                result = await self._classify(task, request, stages)
            case Embed() as task:
                result = await embed(task, self._towers[0], self._prepare, request, stages)
            case _:
                raise Fault(Kind.INVALID, f"{self._manifest.model} takes labels or texts, not visual prompts", param="model")
        return Answer(result, self._info, stages.seconds)

    async def _classify(self, task: Classify, request: Request, stages: Stages) -> Scores:
        positive, negative = _templates(task.labels, self._manifest)
        check_sentences(len(task.labels.names), len(positive))
        pixels = await pixels_of(task.images, self._prepare, self._tools, request, stages)
        with stages.measure("encode"):
            each = [
                asyncio.create_task(self._one(towers, pixels, task.labels.names, positive, negative, request))
                for towers in self._towers
            ]
            try:
                probabilities = await asyncio.gather(*each)
            finally:
                for one in each:
                    one.cancel()
        with stages.measure("postprocess"):
            return Scores(task.labels.names, ensemble(probabilities), SCORING)

    async def _one(
        self,
        towers: Towers,
        pixels: npt.NDArray[np.float32],
        names: tuple[str, ...],
        positive: tuple[str, ...],
        negative: tuple[str, ...],
        request: Request,
    ) -> npt.NDArray[np.float32]:
        """One checkpoint's probabilities, (n, k)."""
        for_it = await towers.labels(names, positive, request, self._cache)
        against = await towers.labels(names, negative, request, self._cache)
        return pair_probabilities(await towers.images(pixels, request), for_it, against)


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
