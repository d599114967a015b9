"""LiteMedSAM's answers: encode a picture once, then decode all objects of a request on its Features."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.answer import Answer, Encoded, EncodedMask, Mask, Masks
from serving.domain.image import EncodedImage, Frame, Image, ImageHandle
from serving.domain.prompt import LOGITS_SIDE_PX, ObjectPrompt
from serving.domain.request import Encode, Lookup, MaskFormat, Request, Segment
from serving.embeddings.keys import features_key, handle_of
from serving.embeddings.store import Features, Outcome
from serving.engines.engine import Engine, EngineSpec
from serving.errors import Fault, Kind, SetupError
from serving.families.family import Family, Tools
from serving.families.litemedsam import engines
from serving.families.litemedsam.postprocess import binary_mask
from serving.families.litemedsam.preprocess import PREPROCESSING_ID, SIDE_PX, prepare
from serving.families.litemedsam.prompts import OBJECTS_A_CALL, Group, check, group
from serving.imaging import masks
from serving.manifest import Manifest
from serving.telemetry.stages import Stages

FEATURES_BYTES = 256 * 64 * 64 * 4
"""Bytes of one image's Features: (1, 256, 64, 64) float32."""


class LiteMedSam:
    """One served LiteMedSAM. Engines are opened at once; nothing is loaded here."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        if tools.store.budget_bytes < FEATURES_BYTES:
            raise SetupError(f"features_bytes must be at least {FEATURES_BYTES}: one image's Features of {manifest.model}")
        self._manifest = manifest
        self._info = manifest.info()
        self._tools = tools
        opened = {part: tools.engine(spec, manifest.engines[part][0]) for part, spec in DECLARATION.specs(manifest).items()}
        self._image_encoder: Engine = opened["image_encoder"]
        self._prompt_encoder: Engine = opened["prompt_encoder"]
        self._mask_decoder: Engine = opened["mask_decoder"]
        self._mask_refiner: Engine = opened["mask_refiner"]

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
                return self._say(self._handle(features, self._tools.store.ttl_s), stages, outcome)
            case Lookup(handle=handle, drop=drop):
                found = (self._tools.store.forget if drop else self._tools.store.find)(
                    handle.id, request.tenant, self._manifest.digest
                )
                return self._say(self._handle(found, 0.0 if drop else self._tools.store.ttl_s), stages, "hit")
            case _:
                raise Fault(Kind.INVALID, f"{self._manifest.model} takes boxes, points or a mask", param="model")

    async def _segment(self, task: Segment, request: Request, stages: Stages) -> Answer:
        check(task.objects)
        features, outcome = await self._features(task, request, stages)
        _within(task.objects, features.frame)
        found: list[tuple[Mask, ...]] = [()] * len(task.objects)
        for members in group(task.objects, features.frame.size_px):
            with stages.measure("decode_mask"):
                logits, scores = await self._decode(members, features, task.multimask, request)
            for row, index in enumerate(members.objects):
                found[index] = tuple(
                    [
                        await self._mask(index, logits[row, n], float(scores[row, n]), features, task, stages, request)
                        for n in range(logits.shape[1])
                    ]
                )
        result = Masks(tuple(mask for several in found for mask in several), features.frame, features.handle)
        return self._say(result, stages, outcome)

    async def _features(self, task: Segment, request: Request, stages: Stages) -> tuple[Features, Outcome]:
        if isinstance(task.image, ImageHandle):
            return self._tools.store.find(task.image.id, request.tenant, self._manifest.digest), "hit"
        return await self._encode(task.image, task.objects, request, stages)

    async def _encode(
        self, image: EncodedImage, objects: tuple[ObjectPrompt, ...], request: Request, stages: Stages
    ) -> tuple[Features, Outcome]:
        """Features of an image: held, or decoded, checked against the prompts by this request itself, then encoded."""
        content_key = image.content_key()
        key = features_key(request.tenant, self._manifest.digest, PREPROCESSING_ID, content_key)
        held = self._tools.store.get(key)
        if held is not None:
            return held, "hit"
        request.deadline.check("decode")
        with stages.measure("decode"):
            decoded: Image = await self._tools.run(partial(self._tools.decode, image))
        _within(objects, decoded.frame)
        left_s = request.deadline.check("encode")
        start = time.perf_counter()
        encode = partial(self._encode_pixels, key, handle_of(content_key, key), decoded, request, stages)
        try:
            async with asyncio.timeout(left_s):
                features, outcome = await self._tools.store.get_or_encode(key, encode)
        except TimeoutError as exc:
            raise Fault(Kind.DEADLINE, "the deadline passed during encode", param="deadline") from exc
        if outcome == "coalesced":
            stages.add("queue", time.perf_counter() - start)
        return features, outcome

    async def _encode_pixels(self, key: str, handle: str, image: Image, request: Request, stages: Stages) -> Features:
        with stages.measure("preprocess"):
            given = await self._tools.run(partial(prepare, image))
        with stages.measure("encode"):
            made = await self._image_encoder.infer(
                {"image": given.tensor}, request.deadline, outputs=("features",), priority=request.priority
            )
        value = await self._tools.run(partial(self._tools.place, made["features"]))
        return Features(key, handle, request.tenant, self._manifest.digest, value, image.frame, given.content_px)

    async def _decode(
        self, members: Group, features: Features, multimask: bool, request: Request
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits (P, M, 256, 256) and IoU estimates (P, M) float32 of a group; M is 3 with `multimask`, else 1."""
        prompt: dict[str, npt.NDArray[Any]] = {"points": members.points, "labels": members.labels}
        made = await self._prompt_encoder.infer(prompt, request.deadline, outputs=("sparse",), priority=request.priority)
        given: dict[str, npt.NDArray[Any]] = {"features": features.value, "sparse": made["sparse"]}
        engine = self._mask_decoder
        if members.logits is not None:
            given["logits"] = members.logits
            engine = self._mask_refiner
        names = ("masks", "ious") if multimask else ("mask", "iou")
        out = await engine.infer(given, request.deadline, outputs=names, priority=request.priority)
        return out[names[0]], out[names[1]]

    async def _mask(
        self,
        index: int,
        logits: npt.NDArray[np.float32],
        score: float,
        features: Features,
        task: Segment,
        stages: Stages,
        request: Request,
    ) -> Mask:
        request.deadline.check("postprocess")
        encoded, spent = await self._tools.run(partial(_finish, logits, features, task.output))
        for stage, seconds in spent.items():
            stages.add(stage, seconds)
        return Mask(index, encoded, score, logits.astype(np.float16) if task.return_logits else None)

    def _handle(self, features: Features, expires_in_s: float) -> Encoded:
        return Encoded(features.handle, features.frame, expires_in_s)

    def _say(self, result: Masks | Encoded, stages: Stages, outcome: Outcome) -> Answer:
        return Answer(result, self._info, stages.seconds, outcome)


def _within(objects: tuple[ObjectPrompt, ...], frame: Frame) -> None:
    for item in objects:
        item.within(frame)


def _finish(logits: npt.NDArray[np.float32], features: Features, output: MaskFormat) -> tuple[EncodedMask, dict[str, float]]:
    """Threshold and write one mask in a pool thread, one at a time: full-size masks are never held together."""
    stages = Stages()
    with stages.measure("postprocess"):
        mask = binary_mask(logits, features.content_px, features.frame.size_px)
    with stages.measure("serialise"):
        encoded = masks.encode(mask, output)
    return encoded, stages.seconds


class Declaration:
    """What LiteMedSAM is before any of its engines is built."""

    name = "litemedsam"
    pool = "adaptive"
    tasks: frozenset[type] = frozenset({Segment, Encode, Lookup})

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: image_encoder, prompt_encoder, mask_decoder, mask_refiner."""
        return engines.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where the Features store could not hold one image."""
        return LiteMedSam(manifest, tools)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Sides in pixels; objects in one decoder call (more are split, not refused)."""
        return {"model_side_px": SIDE_PX, "logits_side_px": LOGITS_SIDE_PX, "objects_a_call": OBJECTS_A_CALL, "masks": [1, 3]}


DECLARATION = Declaration()
