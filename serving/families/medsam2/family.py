"""MedSAM2's answers: masks on one picture, as SAM 2's image predictor gives them, and through a volume."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.answer import Answer, Encoded, Mask, Masks
from serving.domain.image import EncodedImage, Frame, ImageHandle
from serving.domain.prompt import LOGITS_SIDE_PX, ObjectPrompt
from serving.domain.request import Encode, Lookup, Request, Segment
from serving.domain.volume import SegmentVolume, VolumeAnswer, VolumeObject
from serving.embeddings.aside import Aside
from serving.embeddings.keys import features_key, handle_of
from serving.embeddings.shared import Shared
from serving.embeddings.store import Features, FeaturesStore, Outcome, Subject
from serving.engines.engine import Engine, EngineSpec
from serving.errors import Fault, Kind, SetupError
from serving.families.family import Family, Tools
from serving.families.medsam2 import engines
from serving.families.medsam2.postprocess import binary_mask, steady
from serving.families.medsam2.preprocess import prepare, preprocessing_id
from serving.families.medsam2.prompts import OBJECTS_A_CALL, Group, check, group, to_travel
from serving.families.medsam2.volume import MedSam2Slices
from serving.families.volume_answer import Tell
from serving.families.volume_answer import answer as answer_volume
from serving.imaging import masks
from serving.imaging.volume import Volume
from serving.imaging.volumes import Slices
from serving.manifest import Manifest
from serving.shm import Slot
from serving.telemetry.stages import Stages

Floats = npt.NDArray[np.float32]
SMALL_PX = 600 * 600
"""A mask of at most so many pixels is finished on the spot: less than a thread's hand-over may take."""


class MedSam2:
    """One served MedSAM2. Engines are opened at once; nothing is loaded here."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        if tools.store is None:
            raise SetupError(f"model {manifest.model} needs a Features store: serve it in the adaptive pool")
        self._manifest = manifest
        self._info = manifest.info()
        self._tools = tools
        self._store: FeaturesStore = tools.store
        self._side_px = engines.image_size(manifest)
        self._preparing = Shared[tuple[Frame, Floats]]()
        specs = DECLARATION.specs(manifest)
        self._engines: dict[str, Engine] = {part: tools.engine(spec, manifest.engines[part][0]) for part, spec in specs.items()}

    @property
    def manifest(self) -> Manifest:
        """The built model behind it."""
        return self._manifest

    async def answer(self, request: Request, stages: Stages) -> Answer:
        """Masks for Segment, a handle for Encode and Lookup. Raises Fault."""
        match request.task:
            case Segment() as task:
                return await self._segment(task, request, stages)
            case Encode(image=image):
                features, outcome = await self._encode(image, (), request, stages)
                return self._say(Encoded(features.handle, features.frame, self._store.ttl_s), stages, outcome)
            case Lookup(handle=handle, drop=drop):
                found = (self._store.forget if drop else self._store.find)(handle.id, request.tenant, self._manifest.digest)
                return self._say(Encoded(found.handle, found.frame, 0.0 if drop else self._store.ttl_s), stages, "hit")
            case _:
                raise Fault(Kind.INVALID, f"{self._manifest.model} takes boxes, points or a mask", param="model")

    async def answer_volume(self, request: Request, stages: Stages, tell: Tell, volume: Volume | None = None) -> VolumeAnswer:
        """Masks on every slice, by propagation in both directions. Raises Fault."""
        aside = Aside(self._store.arena, self._tools.kept_features_bytes)

        def on_slices(slices: Slices, objects: tuple[VolumeObject, ...]) -> MedSam2Slices:
            return MedSam2Slices(slices, objects, self._engines, aside, self._side_px, self._tools, request, stages)

        return await answer_volume(request, self._tools, self._info, stages, tell, on_slices, volume)

    async def _segment(self, task: Segment, request: Request, stages: Stages) -> Answer:
        check(task.objects)
        features, outcome = await self._features(task, request, stages)
        _within(task.objects, features.frame)
        found: list[tuple[Mask, ...]] = [()] * len(task.objects)
        for members in group(task.objects, features.frame.size_px, self._side_px):
            logits, scores = await self._decode(members, features, task.multimask, request, stages)
            request.deadline.check("postprocess")
            finish = partial(_finish, members, logits, scores, features, task, stages)
            small = math.prod(features.frame.size_px) * scores.size <= SMALL_PX
            for index, masks_of_one in zip(members.objects, finish() if small else await self._tools.run(finish), strict=True):
                found[index] = masks_of_one
        result = Masks(tuple(mask for several in found for mask in several), features.frame, features.handle)
        return self._say(result, stages, outcome)

    async def _features(self, task: Segment, request: Request, stages: Stages) -> tuple[Features, Outcome]:
        if isinstance(task.image, ImageHandle):
            return self._store.find(task.image.id, request.tenant, self._manifest.digest), "hit"
        return await self._encode(task.image, task.objects, request, stages)

    async def _encode(
        self, image: EncodedImage, objects: tuple[ObjectPrompt, ...], request: Request, stages: Stages
    ) -> tuple[Features, Outcome]:
        """Features of an image: held, under way, or decoded, checked against this request's own prompts and encoded."""
        content_key = image.content_key()
        key = features_key(request.tenant, self._manifest.digest, preprocessing_id(self._side_px), content_key)
        held = self._store.get(key)
        if held is not None:
            return held, "hit"
        left_s = request.deadline.check("encode")
        start = time.perf_counter()
        try:
            async with asyncio.timeout(left_s):
                joined = await self._store.join(key)
                if joined is not None:
                    stages.add("queue", time.perf_counter() - start)
                    return joined, "coalesced"
                frame, tensor = await self._preparing.run(content_key, partial(self._prepare, image, stages))
                _within(objects, frame)
                square = (self._side_px, self._side_px)
                subject = Subject(key, handle_of(content_key, key), request.tenant, self._manifest.digest, frame, square)
                start = time.perf_counter()
                features, outcome = await self._store.get_or_encode(subject, partial(self._fill, tensor, request, stages))
        except TimeoutError as exc:
            raise Fault(Kind.DEADLINE, "the deadline passed during encode", param="deadline") from exc
        if outcome != "miss":
            stages.add("queue", time.perf_counter() - start)
        return features, outcome

    async def _prepare(self, image: EncodedImage, stages: Stages) -> tuple[Frame, Floats]:
        def work() -> tuple[Frame, Floats]:
            with stages.measure("decode"):
                decoded = self._tools.decode(image)
            with stages.measure("preprocess"):
                return decoded.frame, prepare(decoded, self._side_px)

        made: tuple[Frame, Floats] = await self._tools.run(work)
        return made

    async def _fill(self, tensor: Floats, request: Request, stages: Stages, slot: Slot) -> None:
        await self._engines["image_encoder"].infer(
            {"image": tensor}, request.deadline, priority=request.priority, slot=slot, timing=stages.timing("encode")
        )

    async def _decode(
        self, members: Group, features: Features, multimask: bool, request: Request, stages: Stages
    ) -> tuple[Floats, Floats]:
        """Logits (P, M, S, S) and IoU estimates (P, M) float32 of a group; M is 3 with `multimask`, else 1."""
        given: dict[str, npt.NDArray[Any]] = {"points": members.points[None], "labels": members.labels[None]}
        part = "mask_decoder"
        if members.logits is not None:
            given["logits"], part = members.logits[None], "mask_refiner"
        out = await self._engines[part].infer(
            given,
            request.deadline,
            outputs=("masks", "ious"),
            priority=request.priority,
            slot=features.slot,
            timing=stages.timing("decode_mask"),
        )
        logits, scores = out["masks"][0], out["ious"][0]
        if multimask:
            return logits[:, 1:], scores[:, 1:]
        chosen = [steady(four, ious) for four, ious in zip(logits, scores, strict=True)]
        rows = np.arange(len(chosen))
        return logits[rows, chosen][:, None], scores[rows, chosen][:, None]

    def _say(self, result: Masks | Encoded, stages: Stages, outcome: Outcome) -> Answer:
        return Answer(result, self._info, stages.seconds, outcome)


def _within(objects: tuple[ObjectPrompt, ...], frame: Frame) -> None:
    for item in objects:
        item.within(frame)


def _finish(
    members: Group, logits: Floats, scores: Floats, features: Features, task: Segment, stages: Stages
) -> list[tuple[Mask, ...]]:
    """Threshold and write the masks of a group, one at a time: full-size masks are never held together."""

    def one(row: int, number: int) -> Mask:
        given = logits[row, number]
        with stages.measure("postprocess"):
            mask = binary_mask(given, features.frame.size_px)
        with stages.measure("serialise"):
            encoded = masks.encode(mask, task.output)
        low = to_travel(given).astype(np.float16) if task.return_logits else None
        return Mask(members.objects[row], encoded, float(scores[row, number]), low)

    return [tuple(one(row, number) for number in range(logits.shape[1])) for row in range(logits.shape[0])]


class Declaration:
    """What MedSAM2 is before any of its engines is built."""

    name = "medsam2"
    pool = "adaptive"
    tasks: frozenset[type] = frozenset({Segment, Encode, Lookup, SegmentVolume})

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: `engines.PARTS`."""
        return engines.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where there is no Features store."""
        return MedSam2(manifest, tools)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Sides in pixels; objects in one decoder call (more are split, not refused)."""
        side = engines.image_size(manifest)
        return {"model_side_px": side, "logits_side_px": LOGITS_SIDE_PX, "objects_a_call": OBJECTS_A_CALL, "masks": [1, 3]}


DECLARATION = Declaration()
