"""How a SAM-like model answers: encode a picture once, then decode all objects of a request on its Features."""

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
from serving.embeddings.keys import features_key, handle_of
from serving.embeddings.shared import Shared
from serving.embeddings.store import Features, FeaturesStore, Outcome, Subject
from serving.engines.engine import Engine, EngineSpec
from serving.errors import Fault, Kind, SetupError
from serving.families.family import Tools
from serving.families.procedure import ModelInput, Procedure
from serving.families.prompts import OBJECTS_A_CALL, Group, check, group
from serving.families.sam_engines import Call, decoder_call
from serving.imaging import masks
from serving.manifest import Manifest
from serving.shm import Slot
from serving.telemetry.stages import Stages

SMALL_PX = 600 * 600
"""A mask of at most so many pixels is finished on the spot, in about a millisecond: less than a thread's hand-over may take."""


class Promptable:
    """One served SAM-like model. Engines are opened at once; nothing is loaded here.

    `procedure`: of its checkpoint. `specs`: part -> spec of `image_encoder`, `mask_decoder`, `mask_refiner` and any more. A
    model with other tokens or other outputs than SAM's has its own `_group` and `_decode`.
    """

    def __init__(self, manifest: Manifest, tools: Tools, procedure: Procedure, specs: Mapping[str, EngineSpec]) -> None:
        if tools.store is None:
            raise SetupError(f"model {manifest.model} needs a Features store: serve it in the adaptive pool")
        self._manifest = manifest
        self._info = manifest.info()
        self._tools = tools
        self._procedure = procedure
        self._store: FeaturesStore = tools.store
        self._preparing = Shared[tuple[Frame, ModelInput]]()
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
                return self._say(self._handle(features, self._store.ttl_s), stages, outcome)
            case Lookup(handle=handle, drop=drop):
                found = (self._store.forget if drop else self._store.find)(handle.id, request.tenant, self._manifest.digest)
                return self._say(self._handle(found, 0.0 if drop else self._store.ttl_s), stages, "hit")
            case _:
                raise Fault(Kind.INVALID, f"{self._manifest.model} takes boxes, points or a mask", param="model")

    async def _segment(self, task: Segment, request: Request, stages: Stages) -> Answer:
        check(task.objects)
        features, outcome = await self._features(task, request, stages)
        _within(task.objects, features.frame)
        found: list[tuple[Mask, ...]] = [()] * len(task.objects)
        for members in self._group(task.objects, features.frame.size_px):
            logits, scores = await self._decode(members, features, task.multimask, request, stages)
            request.deadline.check("postprocess")
            finish = partial(_finish, members, logits, scores, features, task, self._procedure, stages)
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
        key = features_key(request.tenant, self._manifest.digest, self._procedure.id, content_key)
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
                frame, given = await self._preparing.run(content_key, partial(self._prepare, image, stages))
                _within(objects, frame)
                subject = Subject(
                    key, handle_of(content_key, key), request.tenant, self._manifest.digest, frame, given.content_px
                )
                start = time.perf_counter()
                fill = partial(self._fill, given.tensor, request, stages)
                features, outcome = await self._store.get_or_encode(subject, fill)
        except TimeoutError as exc:
            raise Fault(Kind.DEADLINE, "the deadline passed during encode", param="deadline") from exc
        if outcome != "miss":
            stages.add("queue", time.perf_counter() - start)
        return features, outcome

    async def _prepare(self, image: EncodedImage, stages: Stages) -> tuple[Frame, ModelInput]:
        def work() -> tuple[Frame, ModelInput]:
            with stages.measure("decode"):
                decoded = self._tools.decode(image)
            with stages.measure("preprocess"):
                return decoded.frame, self._procedure.prepare(decoded)

        made: tuple[Frame, ModelInput] = await self._tools.run(work)
        return made

    async def _fill(self, tensor: npt.NDArray[np.float32], request: Request, stages: Stages, slot: Slot) -> None:
        await self._engines["image_encoder"].infer(
            {"image": tensor}, request.deadline, priority=request.priority, slot=slot, timing=stages.timing("encode")
        )

    def _group(self, objects: tuple[ObjectPrompt, ...], size_px: tuple[int, int]) -> tuple[Group, ...]:
        """The objects as decoder calls. `size_px`: (width, height) of the original frame."""
        return group(objects, self._procedure.scale(size_px))

    async def _decode(
        self, members: Group, features: Features, multimask: bool, request: Request, stages: Stages
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits (P, M, S, S) and IoU estimates (P, M) float32 of a group; M is 3 with `multimask`, else 1. SAM: S is 256."""
        names = ("masks", "ious") if multimask else ("mask", "iou")
        out = await self._ask(members, features, names, request, stages)
        return out[names[0]][0], out[names[1]][0]

    def _call(self, members: Group) -> Call:
        """The engine for a group, and what it is given."""
        return decoder_call(members.points, members.labels, members.logits)

    async def _ask(
        self, members: Group, features: Features, outputs: tuple[str, ...], request: Request, stages: Stages
    ) -> dict[str, npt.NDArray[Any]]:
        part, given = self._call(members)
        return await self._engines[part].infer(
            given,
            request.deadline,
            outputs=outputs,
            priority=request.priority,
            slot=features.slot,
            timing=stages.timing("decode_mask"),
        )

    def _handle(self, features: Features, expires_in_s: float) -> Encoded:
        return Encoded(features.handle, features.frame, expires_in_s)

    def _say(self, result: Masks | Encoded, stages: Stages, outcome: Outcome) -> Answer:
        return Answer(result, self._info, stages.seconds, outcome)


def _within(objects: tuple[ObjectPrompt, ...], frame: Frame) -> None:
    for item in objects:
        item.within(frame)


def _finish(
    members: Group,
    logits: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    features: Features,
    task: Segment,
    procedure: Procedure,
    stages: Stages,
) -> list[tuple[Mask, ...]]:
    """Threshold and write the masks of a group, one at a time: full-size masks are never held together."""

    def one(row: int, number: int) -> Mask:
        given = logits[row, number]
        with stages.measure("postprocess"):
            mask = procedure.mask(given, features.content_px, features.frame.size_px)
        with stages.measure("serialise"):
            encoded = masks.encode(mask, task.output)
        low = procedure.to_travel(given).astype(np.float16) if task.return_logits else None
        return Mask(members.objects[row], encoded, float(scores[row, number]), low)

    return [tuple(one(row, number) for number in range(logits.shape[1])) for row in range(logits.shape[0])]


TASKS: frozenset[type] = frozenset({Segment, Encode, Lookup})
"""What every SAM-like model answers."""


def limits(side_px: int, objects_a_call: int = OBJECTS_A_CALL) -> Mapping[str, Any]:
    """Sides in pixels; objects in one decoder call (more are split, not refused)."""
    return {"model_side_px": side_px, "logits_side_px": LOGITS_SIDE_PX, "objects_a_call": objects_a_call, "masks": [1, 3]}
