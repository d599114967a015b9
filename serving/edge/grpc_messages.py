"""Protobuf -> the plain body that `wire` parses, and Answer -> protobuf. Nothing is checked here that `wire` checks."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from serving.domain.answer import Answer, Embeddings, Encoded, Mask, Masks, ModelInfo, Scores
from serving.domain.image import Frame
from serving.edge import limits, render
from serving.edge.fields import invalid
from serving.edge.proto import inference_pb2 as pb
from serving.errors import Fault, Kind
from serving.router.brain import ServedModel
from serving.settings import LimitSettings

M = TypeVar("M", bound=Message)


def read(data: bytes, kind: type[M], most: LimitSettings) -> M:
    """A message of its bytes. Raises Fault: TOO_LARGE, MALFORMED."""
    limits.body(len(data), most)
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise Fault(Kind.MALFORMED, f"the message is not a {kind.DESCRIPTOR.full_name}", param="body") from exc


def image(given: pb.Image) -> dict[str, Any]:
    """An image as a plain body."""
    body: dict[str, Any] = {"data": given.data, "media_type": given.media_type}
    if given.HasField("raw"):
        body["raw"] = {"dtype": given.raw.dtype, "shape": list(given.raw.shape)}
    for name in ("index", "axis"):
        if given.HasField(name):
            body[name] = getattr(given, name)
    if chosen := given.window.WhichOneof("kind"):
        window = getattr(given.window, chosen)
        body["window"] = {field.name: value for field, value in window.ListFields()}
        if chosen != "range":
            # Numbers without presence: 0 is a value, not an absence.
            names = ("center", "width") if chosen == "linear" else ("low", "high")
            body["window"].update({name: getattr(window, name) for name in names})
        else:
            body["window"] = {"minimum": None, "maximum": None} | body["window"]
    return body


def source(given: pb.ImageSource) -> dict[str, Any]:
    """An image or a handle as a plain body."""
    return {"image_id": given.image_id} if given.WhichOneof("kind") == "image_id" else image(given.image)


def _one_source(given: pb.ImageSource) -> dict[str, Any]:
    match given.WhichOneof("kind"):
        case "image":
            return {"image": image(given.image)}
        case "image_id":
            return {"image_id": given.image_id}
        case _:
            return {}


def objects(given: Any, most: LimitSettings) -> list[dict[str, Any]]:
    """Object prompts as plain bodies. Raises Fault where there are too many to look at."""
    limits.count(len(given), most.max_objects, "objects")
    return [_object(each) for each in given]


def _object(given: pb.ObjectPrompt) -> dict[str, Any]:
    body: dict[str, Any] = {"points": [[p.x, p.y, 0 if p.negative else 1] for p in given.points]}
    if given.HasField("box"):
        body["box"] = [given.box.x0, given.box.y0, given.box.x1, given.box.y1]
    if given.mask:
        body["mask"] = given.mask
    return body


def output(given: int) -> str:
    """A mask format's name. Raises Fault(INVALID)."""
    if given not in pb.MaskFormat.values():
        raise invalid("output", "must be one of RLE, PNG, POLYGON, PACKED")
    return pb.MaskFormat.Name(given).lower() if given else "rle"


def segment(given: pb.SegmentRequest, most: LimitSettings) -> dict[str, Any]:
    """SegmentRequest as a plain body."""
    prompt = pb.SessionPrompt(multimask=given.multimask, output=given.output, return_logits=given.return_logits)
    options = session_prompt(prompt, most)
    return {"model": given.model, **_one_source(given.image), **options, "objects": objects(given.objects, most)}


def session_prompt(given: pb.SessionPrompt, most: LimitSettings) -> dict[str, Any]:
    """SessionPrompt as a plain body without its image."""
    return {
        "objects": objects(given.objects, most),
        "multimask": given.multimask,
        "output": output(given.output),
        "return_logits": given.return_logits,
    }


def encode(given: pb.EncodeImageRequest, most: LimitSettings) -> dict[str, Any]:
    """EncodeImageRequest as a plain body."""
    return {"model": given.model, **({"image": image(given.image)} if given.HasField("image") else {})}


def classify(given: pb.ClassifyRequest, most: LimitSettings) -> dict[str, Any]:
    """ClassifyRequest as a plain body."""
    return {"model": given.model, "images": _sources(given.images, most), **_labels(given.labels)}


def embed(given: pb.EmbedRequest, most: LimitSettings) -> dict[str, Any]:
    """EmbedRequest as a plain body."""
    return {"model": given.model, "images": _sources(given.images, most), "texts": list(given.texts)}


def infer(given: pb.InferRequest, most: LimitSettings) -> dict[str, Any]:
    """InferRequest as a plain body."""
    limits.count(len(given.prompts), most.max_objects, "prompts")
    return {
        "model": given.model,
        "images": _sources(given.images, most),
        "prompts": [_prompt(each) for each in given.prompts],
        "output": given.output or "rle",
        "multimask": given.multimask,
        "return_logits": given.return_logits,
    }


def _sources(given: Any, most: LimitSettings) -> list[dict[str, Any]]:
    limits.count(len(given), most.max_images, "images")
    return [source(each) for each in given]


def _labels(given: pb.Labels) -> dict[str, Any]:
    return {
        "labels": list(given.names),
        "templates": list(given.templates),
        "negative_templates": list(given.negative_templates),
    }


def _prompt(given: pb.Prompt) -> dict[str, Any]:
    match given.WhichOneof("kind"):
        case "object":
            return _object(given.object)
        case "labels":
            return _labels(given.labels)
        case _:
            return {"text": given.text}


def answer(given: Answer, request_id: str) -> Message:
    """The response of an answer."""
    told = meta(given, request_id)
    match given.result:
        case Masks(masks=found, frame=frame, image_id=image_id):
            return pb.SegmentResponse(masks=[_mask(each) for each in found], frame=_frame(frame), image_id=image_id, meta=told)
        case Scores(labels=labels, values=values, scoring=scoring):
            scores = np.ascontiguousarray(values, "<f4").tobytes()
            return pb.ClassifyResponse(labels=labels, scores=scores, scoring=scoring, meta=told)
        case Embeddings(vectors=vectors):
            data = np.ascontiguousarray(vectors, "<f4").tobytes()
            return pb.EmbedResponse(vectors=data, dimensions=vectors.shape[1], meta=told)
        case Encoded(image_id=image_id, frame=frame, expires_in_s=seconds):
            return pb.EncodeImageResponse(image_id=image_id, frame=_frame(frame), expires_in_s=seconds, meta=told)


def inferred(given: Answer, request_id: str) -> pb.InferResponse:
    """The response of the one front door."""
    made: dict[str, Any] = {render.task_name(given): answer(given, request_id)}
    return pb.InferResponse(**made)


def deleted(given: Answer, request_id: str) -> pb.DeleteImageResponse:
    """The response of a handle that was forgotten."""
    image_id = given.result.image_id if isinstance(given.result, Encoded) else ""
    return pb.DeleteImageResponse(image_id=image_id, meta=meta(given, request_id))


def meta(given: Answer, request_id: str) -> pb.Meta:
    """Who answered, and how long it took."""
    stages = {name: seconds * 1000 for name, seconds in given.stages.items()}
    return pb.Meta(model=_model(given.model), features=given.features, stages_ms=stages, request_id=request_id)


def error(given: Fault) -> pb.Error:
    """A fault as a message, for sessions."""
    row = given.kind.row
    return pb.Error(
        code=row.code,
        message=given.message,
        param=given.param or "",
        retryable=row.retryable,
        retry_after_s=given.retry_after_s or 0,
    )


def served(given: ServedModel) -> pb.ServedModel:
    """One line of ListModels."""
    record = given.manifest
    return pb.ServedModel(
        model=_model(record.info()),
        prompts=given.prompts,
        licence=record.licence,
        source=record.source,
        limits_json=render.json_bytes(dict(given.limits)).decode(),
        built_at=record.built_at,
        gates_json=render.json_bytes(record.gates()).decode(),
    )


def _model(info: ModelInfo) -> pb.Model:
    return pb.Model(
        name=info.name,
        family=info.family,
        pool=info.pool,
        digest=info.digest,
        engines=info.engines,
        precision=info.precision,
        demonstration=info.demonstration,
    )


def _frame(given: Frame) -> pb.Frame:
    return pb.Frame(
        width=given.size_px[0],
        height=given.size_px[1],
        spacing_mm=given.spacing_mm or (),
        orientation=given.orientation or (),
        modality=given.modality,
    )


def _mask(given: Mask) -> pb.Mask:
    return pb.Mask(
        object=given.object,
        score=given.score,
        area_px=given.mask.area_px,
        box=given.mask.box or (),
        format=given.mask.format.value.upper(),
        data=given.mask.data,
        polygons=[pb.Polygon(xy=np.ascontiguousarray(each, "<f4").tobytes()) for each in given.mask.polygons],
        logits=b"" if given.logits is None else np.ascontiguousarray(given.logits, "<f2").tobytes(),
    )
