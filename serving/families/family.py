"""The family protocol: how one kind of model answers a request. Plain objects: no Ray, no wire, no Triton names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from serving.domain.answer import Answer
from serving.domain.image import EncodedImage, Image
from serving.domain.request import Request
from serving.domain.volume import EncodedVolume, VolumeAnswer, VolumeEvent
from serving.embeddings.store import FeaturesStore
from serving.embeddings.vectors import VectorStore
from serving.engines.engine import Engine, EngineSpec
from serving.imaging.volume import Volume
from serving.manifest import EngineRecord, Manifest
from serving.telemetry.stages import Stages

VECTORS_BYTES, VECTORS_TTL_S = 64 * 1024 * 1024, 3600.0
"""Of a store that nobody configured: some 25,000 vectors of 512 numbers."""


@dataclass(frozen=True)
class Tools:
    """What a family is given to work with.

    `engine`: opens the engine of a spec and a built record. `decode`: bytes -> pixels, blocking. `run`: runs a blocking
    function in the pool's threads. `store`: the node's Features, in the pools that keep them. `vectors`: this replica's image
    vectors, in the pools that compare. `read_volume`: a volume as sent -> voxels, blocking.
    `kept_features_bytes`: what one volume's Features may take beside the arena. `supports`: the folder of support sets.
    `peers`: the models of this pool by name, once all of them are open.
    """

    engine: Callable[[EngineSpec, EngineRecord], Engine]
    decode: Callable[[EncodedImage], Image]
    run: Callable[[Callable[[], Any]], Awaitable[Any]]
    store: FeaturesStore | None = None
    vectors: VectorStore = field(default_factory=partial(VectorStore, VECTORS_BYTES, VECTORS_TTL_S))
    read_volume: Callable[[EncodedVolume], Volume] | None = None
    kept_features_bytes: int = 0
    supports: Path | None = None
    peers: Callable[[], Mapping[str, Family]] = dict


class Family(Protocol):
    """One served model."""

    @property
    def manifest(self) -> Manifest:
        """The built model behind it."""
        ...

    async def answer(self, request: Request, stages: Stages) -> Answer:
        """Answer a request whose task this family's pool takes. Raises Fault."""
        ...


class VolumeFamily(Family, Protocol):
    """A model that also answers `SegmentVolume`: its declaration's `tasks` hold it."""

    async def answer_volume(
        self,
        request: Request,
        stages: Stages,
        tell: Callable[[VolumeEvent], Awaitable[None]],
        volume: Volume | None = None,
    ) -> VolumeAnswer:
        """The masks of a whole volume. Raises Fault; for a wrong request before VolumeAccepted.

        `tell` is given VolumeAccepted once the volume is read and its prompts fit, VolumeLocating where the model looks for its
        objects itself, then one VolumeProgress a slice, in the order of the work. `volume`: the request's, where another model
        has read it already.
        """
        ...


class FamilyDeclaration(Protocol):
    """What a family says of itself before any model of it is built: a module-level value in each folder's `family.py`."""

    name: str
    pool: str
    tasks: frozenset[type]

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec of the engines that a model of this family has."""
        ...

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model."""
        ...

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Limits that `/v1/models` shows."""
        ...


Declarations = Sequence[FamilyDeclaration]
