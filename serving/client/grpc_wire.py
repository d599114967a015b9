"""Call -> protobuf request, protobuf response -> result, gRPC's errors -> the client's; whether it blocks or is awaited."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from serving.client.calls import Call, Options, R, Upload
from serving.client.fault import MedserveError, late, nobody_behind, unreachable, unreadable, waiting
from serving.client.results import Classification, Embeddings, Frame, ImageHandle, Mask, Model, Segmentation
from serving.edge.proto import inference_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["Inference"].full_name
HEALTH, IS_SERVING = "/grpc.health.v1.Health/Check", b"\x08\x01"
"""The standard health check: its path, and its answer 1, SERVING."""
CAP_BYTES = 256 * 1024 * 1024
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", CAP_BYTES), ("grpc.max_send_message_length", CAP_BYTES))
_HTTP_STATUS = re.compile(r"Received http2 header with status: (\d{3})")
"""How gRPC's core tells of an answer that is HTTP's and not gRPC's."""
_CUT = re.compile(r"RST_STREAM|Data frame with END_STREAM")
"""A stream's end that is not gRPC's, which has trailers."""
_WINDOWS = {"center": "linear", "width": "linear", "low": "percentile", "high": "percentile", "nonzero": "percentile"}


@dataclass(frozen=True)
class Rpc:
    """How a call is made: the RPC's path and its two messages."""

    path: str
    response: type[Message]
    build: Callable[[Call[Any]], Message]


def rpc(call: Call[Any]) -> Rpc:
    """The RPC of a call."""
    return _RPCS[call.name]


def serialise(message: Message | bytes) -> bytes:
    """The bytes of a request."""
    return message if isinstance(message, bytes) else message.SerializeToString()


@contextmanager
def answered(address: str) -> Iterator[None]:
    """Around an RPC and what is read of its stream: MedserveError where it failed."""
    try:
        yield
    except grpc.RpcError as exc:
        raise error(exc, address) from exc


def metadata(options: Options, token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a call's options."""
    found = [("authorization", f"Bearer {token}")] if token else []
    for name, value in (("x-request-id", options.get("request_id")), ("x-priority", options.get("priority"))):
        if value:
            found.append((name, value))
    return tuple(found)


def error(exc: Any, address: str) -> MedserveError:
    """What a failed RPC says."""
    trailing: dict[str, str] = dict(exc.trailing_metadata() or ())
    status: grpc.StatusCode = exc.code()
    if "x-error-code" not in trailing:
        return _foreign(status, exc.details() or "", address)
    return MedserveError(
        trailing["x-error-code"],
        exc.details() or "",
        status.name,
        waiting(trailing.get("retry-after")),
        trailing.get("x-error-param"),
        trailing.get("x-request-id", ""),
    )


def _foreign(status: grpc.StatusCode, details: str, address: str) -> MedserveError:
    """What a call met that medserve did not answer: nobody, a proxy with an HTTP status of its own, or gRPC's own limits.

    gRPC turns an HTTP status of 502, 503 and 504 into UNAVAILABLE, but 500, HAProxy's word for "no server", into UNKNOWN
    (grpc/doc/http-grpc-status-mapping.md). Where such a page comes whole at once, it says no more than how its stream ended.
    """
    if answered := _HTTP_STATUS.search(details):
        http = int(answered[1])
        return nobody_behind(http) if http >= 500 else unreadable(http)
    if status is grpc.StatusCode.UNAVAILABLE or _CUT.search(details):  # every call may be sent again: it changes nothing
        return unreachable(address)
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's own limit refuses before the message has come
        return MedserveError("too_large", (details or "the message is too large").splitlines()[0], status.name)
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return late(status.name)
    return MedserveError(status.name.lower(), (details or status.name).splitlines()[0], status.name)


def result(call: Call[R], response: Any) -> R:
    """The result of a call."""
    made: Any = read(response)
    if call.name == "forget":
        # DeleteImage says no more than that the handle is gone.
        made = ImageHandle(image_id=response.image_id, frame=Frame(0, 0, None, None, ""), expires_in_s=0.0, **_common(response))
    return made  # type: ignore[no-any-return]


def read(response: Any) -> Any:
    """A response message as the client's own value."""
    common = _common(response)
    match response:
        case pb.SegmentResponse():
            size = (response.frame.height, response.frame.width)
            masks = tuple(_mask(each, size) for each in response.masks)
            return Segmentation(masks=masks, frame=_frame(response.frame), image_id=response.image_id, **common)
        case pb.EncodeImageResponse():
            return ImageHandle(
                image_id=response.image_id, frame=_frame(response.frame), expires_in_s=response.expires_in_s, **common
            )
        case pb.ClassifyResponse():
            scores = np.frombuffer(response.scores, "<f4").reshape(-1, max(len(response.labels), 1))
            return Classification(labels=tuple(response.labels), scores=scores, scoring=response.scoring, **common)
        case pb.EmbedResponse():
            vectors = np.frombuffer(response.vectors, "<f4").reshape(-1, max(response.dimensions, 1))
            return Embeddings(vectors=vectors, **common)
        case _:
            return None


def models(given: pb.ListModelsResponse) -> tuple[Model, ...]:
    """What is served."""
    return tuple(map(_served, given.models))


def _served(line: pb.ServedModel) -> Model:
    base = model_of(line.model)
    return Model(
        base.name, base.family, base.pool, base.digest, base.engines, base.precision, base.demonstration,
        line.licence, tuple(line.prompts), json.loads(line.limits_json or "{}"),
        json.loads(line.gates_json or "{}"),
    )  # fmt: skip


def object_prompts(body: dict[str, Any]) -> list[pb.ObjectPrompt]:
    """boxes, points, mask and objects as ObjectPrompts, put together as the HTTP front does."""
    found: list[dict[str, Any]] = [{"box": box} for box in body.get("boxes", ())]
    rest: dict[str, Any] = {name: body[name] for name in ("points", "mask") if name in body}
    if rest:
        found = [{**(found[0] if found else {}), **rest}]
    return [_object(each) for each in [*found, *body.get("objects", ())]]


def _object(said: Mapping[str, Any]) -> pb.ObjectPrompt:
    made = pb.ObjectPrompt(mask=said.get("mask", b""))
    if "box" in said:
        x0, y0, x1, y1 = said["box"]
        made.box.CopyFrom(pb.Box(x0=x0, y0=y0, x1=x1, y1=y1))
    for x, y, *label in said.get("points", ()):
        made.points.append(pb.Point(x=x, y=y, negative=bool(label) and not label[0]))
    return made


def image(upload: Upload) -> pb.Image:
    """An image with what is said of it."""
    said = upload.said
    made = pb.Image(data=upload.data, media_type=said.get("media_type", ""), index=said.get("index"), axis=said.get("axis"))
    if "raw" in said:
        made.raw.CopyFrom(pb.RawLayout(**said["raw"]))
    if "window" in said:
        made.window.CopyFrom(window(said["window"]))
    return made


def window(said: Mapping[str, Any]) -> pb.Window:
    """{center, width}, {low, high, nonzero} or {minimum, maximum} as a Window."""
    kind = _WINDOWS.get(next(iter(said), ""), "range")
    given: dict[str, Any] = {kind: said}
    return pb.Window(**given)


def _sources(call: Call[Any]) -> list[pb.ImageSource]:
    uploads = [pb.ImageSource(image=image(each)) for each in call.uploads]
    return uploads or [pb.ImageSource(image_id=each) for each in call.handles]


def mask_options(body: dict[str, Any]) -> dict[str, Any]:
    """multimask, output and return_logits."""
    output = str(body.get("output", "rle")).upper()
    return {
        "multimask": body.get("multimask", False),
        "output": output if output in pb.MaskFormat.keys() else len(pb.MaskFormat.keys()),  # noqa: SIM118
        "return_logits": body.get("return_logits", False),
    }


def _named(call: Call[Any]) -> str:
    return call.options.get("model") or ""


def _segment(call: Call[Any]) -> Message:
    prompts = object_prompts(call.body)
    return pb.SegmentRequest(model=_named(call), image=_sources(call)[0], objects=prompts, **mask_options(call.body))


def _encode(call: Call[Any]) -> Message:
    return pb.EncodeImageRequest(model=_named(call), image=image(call.uploads[0]))


def _classify(call: Call[Any]) -> Message:
    body = call.body
    labels = pb.Labels(
        names=body["labels"],
        templates=body.get("templates", ()),
        negative_templates=body.get("negative_templates", ()),
    )
    return pb.ClassifyRequest(model=_named(call), images=_sources(call), labels=labels)


def _embed(call: Call[Any]) -> Message:
    return pb.EmbedRequest(model=_named(call), images=_sources(call), texts=call.body.get("texts", ()))


def _get(call: Call[Any]) -> Message:
    return pb.GetImageRequest(image_id=call.handles[0], model=_named(call))


def _forget(call: Call[Any]) -> Message:
    return pb.DeleteImageRequest(image_id=call.handles[0], model=_named(call))


_RPCS = {
    "segment": Rpc(f"/{SERVICE}/Segment", pb.SegmentResponse, _segment),
    "images": Rpc(f"/{SERVICE}/EncodeImage", pb.EncodeImageResponse, _encode),
    "image": Rpc(f"/{SERVICE}/GetImage", pb.EncodeImageResponse, _get),
    "forget": Rpc(f"/{SERVICE}/DeleteImage", pb.DeleteImageResponse, _forget),
    "classify": Rpc(f"/{SERVICE}/Classify", pb.ClassifyResponse, _classify),
    "embed": Rpc(f"/{SERVICE}/Embed", pb.EmbedResponse, _embed),
}


def _common(response: Any) -> dict[str, Any]:
    meta = response.meta
    return {
        "model": model_of(meta.model),
        "features": meta.features,
        "stages_ms": dict(meta.stages_ms),
        "request_id": meta.request_id,
    }


def model_of(given: pb.Model) -> Model:
    """Who answered."""
    return Model(given.name, given.family, given.pool, given.digest, dict(given.engines), given.precision, given.demonstration)


def _frame(given: pb.Frame) -> Frame:
    spacing, orientation = tuple(given.spacing_mm) or None, tuple(given.orientation) or None
    return Frame(given.width, given.height, spacing, orientation, given.modality)


def _mask(given: pb.Mask, size: tuple[int, int]) -> Mask:
    polygons = tuple(np.frombuffer(each.xy, "<f4") for each in given.polygons)
    logits = np.frombuffer(given.logits, "<f2").reshape(256, 256) if given.logits else None
    form = pb.MaskFormat.Name(given.format).lower()
    return Mask(given.object, given.score, given.area_px, tuple(given.box) or None, size, form, given.data, polygons, logits)
