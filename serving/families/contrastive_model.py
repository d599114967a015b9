"""What every served contrastive model is: it scores pictures against labels, and gives vectors of pictures or texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Literal

from serving.domain.answer import Answer, Embeddings, Scores
from serving.domain.request import Classify, Embed, Request
from serving.embeddings.vectors import Outcome
from serving.errors import Fault, Kind
from serving.families.contrastive import Pictures
from serving.manifest import Manifest
from serving.telemetry.stages import Stages


class ContrastiveModel(ABC):
    """One served model. A family says how labels become scores.

    `pictures`: its image side, with all of its checkpoints; vectors that a client asks for are the first one's.
    """

    def __init__(self, manifest: Manifest, pictures: Pictures) -> None:
        self._manifest = manifest
        self._info = manifest.info()
        self._pictures = pictures
        self._first = replace(pictures, towers=pictures.towers[:1])

    @property
    def manifest(self) -> Manifest:
        """The built model behind it."""
        return self._manifest

    async def answer(self, request: Request, stages: Stages) -> Answer:
        """Scores for Classify, unit vectors for Embed. Raises Fault."""
        result: Scores | Embeddings
        features: Outcome | Literal[""]
        match request.task:
            case Classify() as task:
                result, features = await self._classify(task, request, stages)
            case Embed() as task:
                result, features = await self._embed(task, request, stages)
            case _:
                raise Fault(Kind.INVALID, f"{self._manifest.model} takes labels or texts, not visual prompts", param="model")
        return Answer(result, self._info, stages.seconds, features)

    @abstractmethod
    async def _classify(self, task: Classify, request: Request, stages: Stages) -> tuple[Scores, Outcome]:
        """Scores of each picture for each label, and whether its vectors were held. Raises Fault."""

    async def _embed(self, task: Embed, request: Request, stages: Stages) -> tuple[Embeddings, Outcome | Literal[""]]:
        if task.images:
            vectors, outcome = await self._first.vectors(task.images, request, stages)
            return Embeddings(vectors[:, 0]), outcome
        return Embeddings(await self._first.towers[0].texts(task.texts, request, stages)), ""
