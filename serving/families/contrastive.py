"""What the contrastive families share: pictures and texts -> unit vectors through two towers, and remembered labels."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.answer import Embeddings
from serving.domain.image import EncodedImage, Image, ImageSource
from serving.domain.request import Embed, Request
from serving.engines.engine import Engine, EngineSpec
from serving.errors import Fault, Kind, SetupError
from serving.families.family import Tools
from serving.families.tokenizer import Tokenizer, open_tokenizer
from serving.manifest import EngineRecord, Manifest
from serving.telemetry.stages import Stages

Vectors = npt.NDArray[np.float32]
"""(n, D) float32."""

Prepare = Callable[[Image], npt.NDArray[np.float32]]
"""Decoded picture -> (3, S, S) float32, what the image tower takes."""

MAX_SENTENCES = 10_000
"""Most labels x templates in one call."""

ITEMS_A_CALL = 32
"""Items in one engine call where the engine's spec names no largest batch."""


class LabelCache:
    """Label vectors by (checkpoint, templates, label), the most recently used `entries` of them."""

    def __init__(self, entries: int = 8192) -> None:
        self._entries = entries
        self._held: OrderedDict[bytes, Vectors] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: bytes) -> Vectors | None:
        """The (D,) vector of a key, used now, or None."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: bytes, vector: Vectors) -> None:
        """Keep a (D,) vector; the least recently used leaves when the cache is full."""
        self._held[key] = vector
        self._held.move_to_end(key)
        while len(self._held) > self._entries:
            self._held.popitem(last=False)


@dataclass(frozen=True)
class Towers:
    """The two towers of one checkpoint. `digest`: tells its text vectors from those of other checkpoints."""

    image: Engine
    text: Engine
    tokenizer: Tokenizer
    context_length: int
    digest: str
    tools: Tools

    async def images(self, pixels: npt.NDArray[np.float32], request: Request) -> Vectors:
        """(n, 3, S, S) float32 -> (n, D) unit vectors, in calls of the engine's largest batch."""
        return await _embed(self.image, "pixels", pixels, request)

    async def texts(self, texts: Sequence[str], request: Request) -> Vectors:
        """Texts -> (n, D) unit vectors, in calls of the engine's largest batch. Raises Fault where a text is too long."""
        tokens = await self.tools.run(partial(self.tokenizer.batch, list(texts), self.context_length))
        return await _embed(self.text, "tokens", tokens, request)

    async def labels(self, names: Sequence[str], templates: Sequence[str], request: Request, cache: LabelCache) -> Vectors:
        """(labels, D) unit vectors: each the renormalised mean of the label's unit vectors over the templates."""
        keys = [_label_key(self.digest, templates, name) for name in names]
        found = [cache.get(key) for key in keys]
        missing = [index for index, vector in enumerate(found) if vector is None]
        if missing:
            sentences = [fill(template, names[index]) for index in missing for template in templates]
            vectors = await self.texts(sentences, request)
            means = unit(vectors.reshape(len(missing), len(templates), -1).mean(axis=1))
            for index, vector in zip(missing, means, strict=True):
                cache.put(keys[index], vector)
                found[index] = vector
        return np.stack([vector for vector in found if vector is not None])


def open_towers(manifest: Manifest, tools: Tools, specs: Callable[[Manifest], Any]) -> tuple[Towers, ...]:
    """One pair of towers for each checkpoint of the model, in the manifest's order. Raises SetupError where unpaired."""
    parts: dict[str, EngineSpec] = dict(specs(manifest))
    tokenizer = open_tokenizer(manifest.options)
    context_length = int(option(manifest, "context_length"))
    images, texts = manifest.engines.get("image_encoder", ()), manifest.engines.get("text_encoder", ())
    if not images or len(images) != len(texts):
        raise SetupError(f"model {manifest.model} needs as many text as image encoders: build it again")

    def pair(image: EngineRecord, text: EngineRecord) -> Towers:
        opened = tools.engine(parts["image_encoder"], image), tools.engine(parts["text_encoder"], text)
        return Towers(*opened, tokenizer, context_length, text.digest, tools)

    return tuple(pair(image, text) for image, text in zip(images, texts, strict=True))


async def pixels_of(
    sources: Sequence[ImageSource], prepare: Prepare, tools: Tools, request: Request, stages: Stages
) -> npt.NDArray[np.float32]:
    """Pictures as sent -> (n, 3, S, S) float32. One is decoded at a time, so that only small tensors are held together."""
    prepared = []
    for source in sources:
        if not isinstance(source, EncodedImage):
            raise Fault(Kind.INVALID, "this model keeps no images: send the image itself, not a handle", param="image_id")
        request.deadline.check("decode")
        with stages.measure("decode"):
            image: Image = await tools.run(partial(tools.decode, source))
        with stages.measure("preprocess"):
            prepared.append(await tools.run(partial(prepare, image)))
    return np.stack(prepared)


async def embed(task: Embed, towers: Towers, prepare: Prepare, request: Request, stages: Stages) -> Embeddings:
    """One unit vector for each image or text of the task."""
    if task.images:
        pixels = await pixels_of(task.images, prepare, towers.tools, request, stages)
        with stages.measure("encode"):
            return Embeddings(await towers.images(pixels, request))
    with stages.measure("encode"):
        return Embeddings(await towers.texts(task.texts, request))


def unit(vectors: Vectors) -> Vectors:
    """Each row divided by its L2 norm, float32."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def fill(template: str, label: str) -> str:
    """The sentence of a label. The template's one {} is replaced; nothing else in it or in the label is interpreted."""
    return template.replace("{}", label)


def check_sentences(labels: int, templates: int) -> None:
    """Refuse more sentences than a call may cost. Raises Fault(TOO_LARGE)."""
    if labels * templates > MAX_SENTENCES:
        raise Fault(Kind.TOO_LARGE, f"labels times templates may be {MAX_SENTENCES} at most", param="templates")


def option(manifest: Manifest, name: str) -> Any:
    """What the record says of the checkpoint. Raises SetupError where it does not say."""
    if name not in manifest.options:
        raise SetupError(f"the record of model {manifest.model} does not say {name}: build it again")
    return manifest.options[name]


async def _embed(engine: Engine, name: str, items: npt.NDArray[Any], request: Request) -> Vectors:
    size = engine.spec.max_batch or ITEMS_A_CALL
    made = []
    for start in range(0, len(items), size):
        request.deadline.check("encode")
        chunk = {name: items[start : start + size]}
        out = await engine.infer(chunk, request.deadline, outputs=("embedding",), priority=request.priority)
        made.append(out["embedding"])
    return unit(np.concatenate(made))


def _label_key(digest: str, templates: Sequence[str], label: str) -> bytes:
    return hashlib.sha256(json.dumps([digest, list(templates), label]).encode()).digest()
