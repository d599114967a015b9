"""A brain that needs no model: it checks as a pool would, and answers with little pictures."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Mapping

import numpy as np
from pycocotools import mask as coco

from serving.domain.answer import Answer, Embeddings, Encoded, EncodedMask, Mask, Masks, ModelInfo, Scores
from serving.domain.image import EncodedImage, Frame, ImageHandle
from serving.domain.request import Classify, Embed, Encode, Lookup, MaskFormat, Request, Segment
from serving.domain.volume import (
    ClassNames,
    FoundObject,
    SegmentVolume,
    VolumeAccepted,
    VolumeAnswer,
    VolumeEvent,
    VolumeFrame,
    VolumeLocating,
    VolumeProgress,
)
from serving.errors import Fault, Kind
from serving.manifest import EngineRecord, Manifest
from serving.router import dispatch
from serving.router.brain import Readiness, ServedModel

WIDTH, HEIGHT = 64, 48
VOLUME_FRAME = VolumeFrame((WIDTH, HEIGHT, 6), (0.5, 0.25, 2.0), ((0.5, 0, 0, 1), (0, 0.25, 0, 2), (0, 0, 2, 3)), "CT")
FRAME = Frame((WIDTH, HEIGHT), (0.5, 0.25), modality="MR")


def manifest(name: str, pool: str) -> Manifest:
    gate = {"kind": "mask_iou", "mean": 0.995, "passed": True, "dropped": {"bf16": {"why": "its answers differ"}}}
    engines = {"part": (EngineRecord(name=f"{name}_part", digest="e" * 64, precision="bf16-late", gate=gate),)}
    return Manifest(
        model=name, family=name, pool=pool, digest="d" * 64, source="here", licence="Apache-2.0", engines=engines,
        demonstration=pool == "contrastive",
    )  # fmt: skip


SERVED = (
    ServedModel(manifest("sam", "adaptive"), (*dispatch.VISUAL, dispatch.VOLUME), {"objects": 256}),
    ServedModel(manifest("clip", "contrastive"), dispatch.TEXT, {}),
)


def truth(box: tuple[float, float, float, float]) -> np.ndarray:
    """(HEIGHT, WIDTH) bool: the box, filled."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    x0, y0, x1, y1 = map(int, box)
    mask[y0:y1, x0:x1] = True
    return mask


def encode_mask(mask: np.ndarray, form: MaskFormat) -> EncodedMask:
    data, polygons = b"", ()
    if form is MaskFormat.RLE:
        data = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    elif form is MaskFormat.PACKED:
        data = zlib.compress(np.packbits(mask, axis=1).tobytes())
    elif form is MaskFormat.POLYGON:
        polygons = (np.array([1, 1, 5, 1, 5, 5], np.float32),)
    else:
        data = b"\x89PNG\r\n\x1a\n"
    return EncodedMask(form, (WIDTH, HEIGHT), data, int(mask.sum()), (1, 2, 3, 4), polygons)


class FakeBrain:
    """Implements `Brain`. `delay_s`: how long an answer takes; `trouble`: raised in its place; `handles`: known ones."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.delay_s = 0.0
        self.trouble: Exception | None = None
        self.ready = True
        self.handles: set[str] = set()
        self.cancelled = 0
        self.volume_step_s = 0.0
        self.volume_trouble: Exception | None = None

    async def answer(self, request: Request) -> Answer:
        self.seen.append(request)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.trouble is not None:
            raise self.trouble
        chosen = dispatch.choose(request.task, request.model, SERVED)
        info: ModelInfo = chosen.manifest.info()
        match request.task:
            case Segment() as task:
                return Answer(self._segment(task), info, {"decode": 0.001, "encode": 0.002}, "miss")
            case Encode(image=image):
                return Answer(self._encode(image), info, {"encode": 0.002}, "miss")
            case Lookup(handle=handle, drop=drop):
                self._known(handle)
                if drop:
                    self.handles.discard(handle.id)
                return Answer(Encoded(handle.id, FRAME, 0.0 if drop else 60.0), info, {}, "hit")
            case Classify(images=images, labels=labels):
                values = np.linspace(0, 1, len(images) * len(labels.names), dtype=np.float32)
                return Answer(Scores(labels.names, values.reshape(len(images), -1), "softmax"), info, {"encode": 0.001})
            case Embed(images=images, texts=texts):
                return Answer(Embeddings(np.eye(8, dtype=np.float32)[: len(images) + len(texts)]), info, {"encode": 0.001})

    async def answer_volume(self, request: Request) -> AsyncGenerator[VolumeEvent, None]:
        """Slices of `volume_step_s` each; `volume_trouble` after the third. Class names are looked for in two steps before."""
        task = request.task
        assert isinstance(task, SegmentVolume)
        self.seen.append(request)
        if self.trouble is not None:
            raise self.trouble
        chosen = dispatch.choose(task, request.model, SERVED)
        if task.volume.files[0] == b"slow to read":
            await asyncio.sleep(60)
        for item in task.objects if isinstance(task.objects, tuple) else ():
            item.within(VOLUME_FRAME, task.axis)
        total = VOLUME_FRAME.slices(task.axis)
        yield VolumeAccepted(VOLUME_FRAME, 1, total, chosen.manifest.info())
        try:
            for n in range(3) if isinstance(task.objects, ClassNames) else ():
                await asyncio.sleep(self.volume_step_s)
                yield VolumeLocating(n, 2)
            for n in range(total):
                if n == 3 and self.volume_trouble is not None:
                    raise self.volume_trouble
                await asyncio.sleep(self.volume_step_s)
                yield VolumeProgress(n + 1, total, n, (0,))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        data = b"label map of " + b"|".join(task.volume.files)
        found = (FoundObject(0, 12, 1, 3), FoundObject(1, 0, None, None))
        yield VolumeAnswer(data, task.output, VOLUME_FRAME, found, chosen.manifest.info(), {"encode": 0.002})

    def _known(self, handle: ImageHandle) -> None:
        if handle.id not in self.handles:
            raise Fault(Kind.UNKNOWN_HANDLE, "this image is gone: send it again", param="image_id")

    def _encode(self, image: EncodedImage) -> Encoded:
        ident = f"{image.content_key()}.tag"
        self.handles.add(ident)
        return Encoded(ident, FRAME, 60.0)

    def _segment(self, task: Segment) -> Masks:
        if isinstance(task.image, ImageHandle):
            self._known(task.image)
        found = []
        for n, prompt in enumerate(task.objects):
            prompt.within(FRAME)
            box = prompt.box
            mask = truth((box.x0, box.y0, box.x1, box.y1) if box else (0, 0, 4, 4))
            logits = np.full((256, 256), n, np.float16) if task.return_logits else None
            for _ in range(3 if task.multimask else 1):
                found.append(Mask(n, encode_mask(mask, task.output), 0.5 + n / 100, logits))
        ident = task.image.id if isinstance(task.image, ImageHandle) else self._encode(task.image).image_id
        return Masks(tuple(found), FRAME, ident)

    async def models(self) -> tuple[ServedModel, ...]:
        return SERVED

    async def readiness(self) -> Readiness:
        return Readiness(self.ready, {"adaptive": "ready" if self.ready else "warming up"})


class Notes:
    """Implements `Observer`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str, str, str]] = []
        self.stages: list[tuple[str, str, Mapping[str, float]]] = []
        self.deadlines: list[str] = []
        self.ready: dict[str, bool] = {}
        self.at = time.monotonic()

    def observe_request(self, route: str, pool: str, model: str, outcome: str, priority: str, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.requests.append((route, pool, model, outcome, priority))

    def observe_deadline(self, stage: str) -> None:
        self.deadlines.append(stage)

    def observe_stages(self, pool: str, model: str, stages: Mapping[str, float]) -> None:
        self.stages.append((pool, model, stages))

    def observe_ready(self, pool: str, ready: bool) -> None:
        self.ready[pool] = ready
