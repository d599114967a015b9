"""An Answer -> plain values that JSON can carry. Bytes stay bytes here; the JSON writer makes them base64."""

from __future__ import annotations

import binascii
import math
from typing import Any

import numpy as np
import orjson

from serving.domain.answer import Answer, Embeddings, Encoded, Mask, Masks, ModelInfo, Scores
from serving.domain.image import Frame
from serving.domain.request import MaskFormat
from serving.errors import Fault
from serving.router.brain import Readiness, ServedModel

_DATA = {MaskFormat.PNG: "png", MaskFormat.PACKED: "packed"}


def answer(given: Answer, encoding: str = "base64") -> dict[str, Any]:
    """The body of an answer. `encoding`: "base64" or "float", how vectors leave."""
    stages_ms = {name: round(seconds * 1000, 3) for name, seconds in given.stages.items()}
    tail: dict[str, Any] = {"model": model(given.model), "stages_ms": stages_ms}
    if given.features:
        tail["features"] = given.features
    match given.result:
        case Masks() as found:
            return {**masks(found), **tail}
        case Scores(labels=labels, values=values, scoring=scoring):
            return {"labels": labels, "scores": np.ascontiguousarray(values, np.float32), "scoring": scoring, **tail}
        case Embeddings(vectors=vectors):
            return {**embeddings(np.ascontiguousarray(vectors, "<f4"), encoding), **tail}
        case Encoded() as found:
            return {"image_id": found.image_id, "frame": frame(found.frame), "expires_in_s": found.expires_in_s, **tail}


def task_name(given: Answer) -> str:
    """The task that an answer answers."""
    names = {Masks: "segment", Scores: "classify", Embeddings: "embed", Encoded: "images"}
    return names[type(given.result)]


def masks(found: Masks) -> dict[str, Any]:
    """Masks, frame and handle."""
    return {"masks": [mask(each, found.frame) for each in found.masks], "frame": frame(found.frame), "image_id": found.image_id}


def mask(given: Mask, of: Frame) -> dict[str, Any]:
    """One mask. `size` is [height, width], as COCO has it."""
    form = given.mask.format
    body: dict[str, Any] = {
        "object": given.object,
        "score": given.score,
        "area_px": given.mask.area_px,
        "box": given.mask.box,
        "size": [of.size_px[1], of.size_px[0]],
        "format": form.value,
    }
    if form is MaskFormat.RLE:
        body["counts"] = given.mask.data.decode("ascii")
    elif form is MaskFormat.POLYGON:
        body["polygons"] = [np.ascontiguousarray(each, np.float32) for each in given.mask.polygons]
    else:
        body[_DATA[form]] = given.mask.data
    if given.logits is not None:
        body["logits"] = np.ascontiguousarray(given.logits, "<f2").tobytes()
    return body


def embeddings(vectors: Any, encoding: str) -> dict[str, Any]:
    """Vectors (items, dimensions): little-endian float32 bytes each, or lists of numbers."""
    given: Any = vectors if encoding == "float" else [row.tobytes() for row in vectors]
    return {"embeddings": given, "dimensions": int(vectors.shape[1]), "encoding": encoding}


def frame(given: Frame) -> dict[str, Any]:
    """Where the pixels lie."""
    width, height = given.size_px
    return {
        "width": width,
        "height": height,
        "spacing_mm": given.spacing_mm,
        "orientation": given.orientation,
        "modality": given.modality,
    }


def model(info: ModelInfo) -> dict[str, Any]:
    """Who answered."""
    return {
        "name": info.name,
        "family": info.family,
        "pool": info.pool,
        "digest": info.digest,
        "engines": info.engines,
        "precision": info.precision,
        "demonstration": info.demonstration,
    }


def served(given: ServedModel) -> dict[str, Any]:
    """One line of `/v1/models`."""
    record = given.manifest
    return {
        **model(record.info()),
        "prompts": given.prompts,
        "limits": dict(given.limits),
        "licence": record.licence,
        "source": record.source,
        "built_at": record.built_at,
        "gates": record.gates(),
    }


def readiness(given: Readiness) -> dict[str, Any]:
    """Ready or not, part by part."""
    return {"ready": given.ready, "parts": dict(given.parts)}


def fault(given: Fault, request_id: str) -> dict[str, Any]:
    """The one error body."""
    body = {"code": given.kind.row.code, "message": given.message, "param": given.param, "request_id": request_id}
    return {"error": body}


def retry_after(given: Fault) -> str | None:
    """Whole seconds to wait, at least 1, for a retryable fault (RFC 9110 section 10.2.3)."""
    if not given.kind.row.retryable:
        return None
    return str(max(1, math.ceil(given.retry_after_s or 1)))


def server_timing(stages: dict[str, float], total_s: float) -> str:
    """The Server-Timing header: milliseconds a stage, and the total."""
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in {**stages, "total": total_s}.items())


def size_bytes(given: Answer) -> int:
    """About how much there is to write."""
    match given.result:
        case Masks(masks=found):
            polygons = sum(each.nbytes for m in found for each in m.mask.polygons)
            return polygons + sum(len(m.mask.data) + (0 if m.logits is None else m.logits.nbytes) for m in found)
        case Scores(values=values):
            return values.nbytes
        case Embeddings(vectors=vectors):
            return vectors.nbytes
        case Encoded():
            return 0


def json_bytes(body: Any) -> bytes:
    """JSON text. Bytes become base64, arrays of numbers lists."""
    return orjson.dumps(body, default=_base64, option=orjson.OPT_SERIALIZE_NUMPY)


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False).decode("ascii")
    raise TypeError(type(value).__name__)
