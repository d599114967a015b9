"""What the contrastive families share: pictures and texts -> unit vectors through two towers, each picture only once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from serving.domain.image import EncodedImage, Image, ImageSource
from serving.domain.request import Request
from serving.embeddings.keys import features_key
from serving.embeddings.vectors import Outcome
from serving.engines.engine import Engine, EngineSpec
from serving.errors import Fault, Kind, SetupError
from serving.families.family import Tools
from serving.families.labels import LabelTables, Vectors, unit
from serving.families.tokenizer import Tokenizer, open_tokenizer, without_padding
from serving.manifest import EngineRecord, Manifest
from serving.telemetry.stages import Stages

T = TypeVar("T")
Pixels = npt.NDArray[np.float32]
"""(n, 3, S, S) float32."""

Padding = Literal["cut", "call", "whole"]
"""How far texts are padded.

"cut": to the longest text of an engine's call, exact where padding changes nothing (a causal tower, a masked one). "call": to
the longest of the texts that were given together, where padding counts and was published so. "whole": to the context.
"""

Prepare = Callable[[Image], npt.NDArray[np.float32]]
"""Decoded picture -> (3, S, S) float32, what the image tower takes."""


class Vectorstore(Protocol):
    """Image vectors by key, each made once for all who wait for it (`embeddings.vectors.VectorStore`)."""

    async def get_or_make_all(
        self, keys: Sequence[str], make: Callable[[Sequence[int]], Awaitable[Sequence[Vectors]]]
    ) -> tuple[list[Vectors], Outcome]:
        """The values of the keys; `make` is called with the indices of those that nobody has or makes."""
        ...


@dataclass(frozen=True)
class Towers:
    """The two towers of one checkpoint.

    `digest`: tells its vectors from those of other checkpoints.
    """

    image: Engine
    text: Engine
    tokenizer: Tokenizer
    context_length: int
    digest: str
    tools: Tools
    labels_known: LabelTables
    padding: Padding = "cut"

    async def images(self, pixels: Pixels, request: Request, stages: Stages) -> Vectors:
        """(n, 3, S, S) float32 -> (n, D) unit vectors, in calls of the engine's largest batch."""
        return await _embed(self.image, "pixels", _parts(pixels, self.image), request, stages)

    async def texts(self, texts: Sequence[str], request: Request, stages: Stages) -> Vectors:
        """Texts -> (n, D) unit vectors, in calls of the engine's largest batch. Raises Fault where a text is too long."""
        request.deadline.check("encode")
        tokens = await self.tools.run(partial(self.tokenizer.batch, list(texts), self.context_length))
        parts = _parts(without_padding(tokens) if self.padding == "call" else tokens, self.text)
        given = list(map(without_padding, parts)) if self.padding == "cut" else parts
        return await _embed(self.text, "tokens", given, request, stages)

    async def labels(self, names: Sequence[str], sets: Sequence[Sequence[str]], request: Request, stages: Stages) -> Vectors:
        """(sets x labels, D) unit vectors: see `LabelTables.table`. Raises Fault."""
        encode = partial(self.texts, request=request, stages=stages)
        return await in_time(request, self.labels_known.table(names, sets, encode))


@dataclass(frozen=True)
class Pictures:
    """The image side of a model, remembered: what its checkpoints see in a picture.

    `preprocessing_id`: names the preprocessing with its parameters and version, `prepare` does it.
    """

    towers: tuple[Towers, ...]
    prepare: Prepare
    preprocessing_id: str
    tools: Tools

    async def vectors(self, sources: Sequence[ImageSource], request: Request, stages: Stages) -> tuple[Vectors, Outcome]:
        """(n, checkpoints, D) unit vectors. Only pictures that nobody has seen are decoded and encoded. Raises Fault."""
        images = [_bytes_of(source) for source in sources]
        digest = "|".join(towers.digest for towers in self.towers)
        keys = [features_key(request.tenant, digest, self.preprocessing_id, image.content_key()) for image in images]

        async def make(missing: Sequence[int]) -> list[Vectors]:
            return list(await self._encode([images[index] for index in missing], request, stages))

        start = time.perf_counter()
        store: Vectorstore = self.tools.vectors
        found, outcome = await in_time(request, store.get_or_make_all(keys, make))
        if outcome == "coalesced":
            stages.add("queue", time.perf_counter() - start)
        return np.stack(found), outcome

    async def _encode(self, images: Sequence[EncodedImage], request: Request, stages: Stages) -> Vectors:
        """Decoded one at a time, so that only small tensors are held together; encoded by all checkpoints at once."""
        prepared = []
        for image in images:
            request.deadline.check("decode")
            pixels, decode_s, prepare_s = await self.tools.run(partial(_prepared, image, self.tools.decode, self.prepare))
            stages.add("decode", decode_s)
            stages.add("preprocess", prepare_s)
            prepared.append(pixels)
        pixels = np.stack(prepared)
        if len(self.towers) == 1:
            return (await self.towers[0].images(pixels, request, stages))[:, None]
        each = [asyncio.create_task(towers.images(pixels, request, stages)) for towers in self.towers]
        try:
            return np.stack(await asyncio.gather(*each), axis=1)
        finally:
            for one in each:
                one.cancel()


def open_towers(
    manifest: Manifest, tools: Tools, specs: Callable[[Manifest], Any], *, padding: Padding = "cut"
) -> tuple[Towers, ...]:
    """One pair of towers for each checkpoint of the model, in the manifest's order. Raises SetupError where unpaired."""
    parts: dict[str, EngineSpec] = dict(specs(manifest))
    tokenizer = open_tokenizer(manifest.options)
    context_length = int(option(manifest, "context_length"))
    images, texts = manifest.engines.get("image_encoder", ()), manifest.engines.get("text_encoder", ())
    if not images or len(images) != len(texts):
        raise SetupError(f"model {manifest.model} needs as many text as image encoders: build it again")

    def pair(image: EngineRecord, text: EngineRecord) -> Towers:
        opened = tools.engine(parts["image_encoder"], image), tools.engine(parts["text_encoder"], text)
        digest = f"{image.digest}/{text.digest}"
        return Towers(*opened, tokenizer, context_length, digest, tools, LabelTables(digest), padding)

    return tuple(pair(image, text) for image, text in zip(images, texts, strict=True))


async def in_time(request: Request, work: Awaitable[T]) -> T:
    """The result of what others may be making, no longer than this request's own deadline. Raises Fault(DEADLINE)."""
    try:
        async with asyncio.timeout(request.deadline.remaining_s()):
            return await work
    except TimeoutError as exc:
        raise Fault(Kind.DEADLINE, "the deadline passed during encode", param="deadline") from exc


def option(manifest: Manifest, name: str) -> Any:
    """What the record says of the checkpoint. Raises SetupError where it does not say."""
    if name not in manifest.options:
        raise SetupError(f"the record of model {manifest.model} does not say {name}: build it again")
    return manifest.options[name]


def _bytes_of(source: ImageSource) -> EncodedImage:
    if not isinstance(source, EncodedImage):
        raise Fault(Kind.INVALID, "this model keeps no images: send the image itself, not a handle", param="image_id")
    return source


def _prepared(
    image: EncodedImage, decode: Callable[[EncodedImage], Image], prepare: Prepare
) -> tuple[npt.NDArray[np.float32], float, float]:
    """(3, S, S) float32, and the seconds of decoding and of preparing. Blocking."""
    start = time.perf_counter()
    decoded = decode(image)
    between = time.perf_counter()
    pixels = prepare(decoded)
    return pixels, between - start, time.perf_counter() - between


def _parts(items: npt.NDArray[Any], engine: Engine) -> list[npt.NDArray[Any]]:
    return [items[start : start + engine.spec.max_batch] for start in range(0, len(items), engine.spec.max_batch)]


async def _embed(engine: Engine, name: str, parts: list[npt.NDArray[Any]], request: Request, stages: Stages) -> Vectors:
    made = []
    for part in parts:
        request.deadline.check("encode")
        out = await engine.infer(
            {name: part},
            request.deadline,
            outputs=("embedding",),
            priority=request.priority,
            timing=stages.timing("encode"),
        )
        made.append(out["embedding"])
    return unit(np.concatenate(made))
