"""Call -> protobuf request, protobuf response -> result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from serving.client.calls import Call, Options, R, Upload
from serving.client.fault import MedserveError, unreachable
from serving.client.results import Classification, Embeddings, Frame, ImageHandle, Mask, Model, Segmentation
from serving.client.volumes import VolumeCall
from serving.edge.proto import inference_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["Inference"].full_name
CAP_BYTES = 256 * 1024 * 1024
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", CAP_BYTES), ("grpc.max_send_message_length", CAP_BYTES))
_WINDOWS = {"center": "linear", "width": "linear", "low": "percentile", "high": "percentile", "nonzero": "percentile"}

_VOLUME_FORMATS = {"nifti": pb.VOLUME_NIFTI, "nrrd": pb.VOLUME_NRRD, "packed": pb.VOLUME_PACKED}


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
        if status is grpc.StatusCode.UNAVAILABLE:
            return unreachable(address)
        if status is grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's own limit refuses before the message has come
            return MedserveError("too_large", (exc.details() or "the message is too large").splitlines()[0], status.name)
        code = "deadline_exceeded" if status is grpc.StatusCode.DEADLINE_EXCEEDED else status.name.lower()
        return MedserveError(code, (exc.details() or status.name).splitlines()[0], status.name)
    wait = trailing.get("retry-after")
    return MedserveError(
        trailing["x-error-code"],
        exc.details() or "",
        status.name,
        float(wait) if wait else None,
        trailing.get("x-error-param"),
        trailing.get("x-request-id", ""),
    )


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


def served(line: pb.ServedModel) -> Model:
    """A line of ListModels."""
    base = _model(line.model)
    return Model(
        base.name, base.family, base.pool, base.digest, base.engines, base.precision, base.demonstration,
        line.licence, tuple(line.prompts), json.loads(line.limits_json or "{}"),
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


def segment_volume(call: VolumeCall) -> pb.SegmentVolumeRequest:
    """The request that brings a volume."""
    body = call.body
    volume = pb.Volume(files=call.files, media_type=call.media_type)
    if "window" in body:
        volume.window.CopyFrom(window(body["window"]))
    said = [{"box": box, "slice": body.get("slice")} for box in body.get("boxes", ())]
    return pb.SegmentVolumeRequest(
        model=call.options.get("model") or "",
        volume=volume,
        objects=[_volume_object(each) for each in (*said, *body.get("objects", ()))],
        axis=body.get("axis"),
        output=_VOLUME_FORMATS.get(body.get("output", "nifti"), len(_VOLUME_FORMATS) + 1),
        keep=bool(body.get("keep")),
        classes=body.get("classes", ()),
        supports=body.get("supports", ""),
    )


def volume_rpc(call: VolumeCall, job: str, after: int) -> tuple[str, Message]:
    """(path, request): of a new job, or of one that is taken up again."""
    if job:
        return f"/{SERVICE}/FollowVolume", pb.FollowVolumeRequest(job=job, after=after)
    return f"/{SERVICE}/SegmentVolume", segment_volume(call)


def _volume_object(said: Mapping[str, Any]) -> pb.VolumeObject:
    box, made = said.get("box"), pb.VolumeObject(slice=said.get("slice"), first=said.get("first"), last=said.get("last"))
    if box is not None and len(box) == 6:
        box, made.first, made.last = [*box[:2], *box[3:5]], int(box[2]), int(box[5])
    if box is not None:
        made.box.CopyFrom(pb.Box(x0=box[0], y0=box[1], x1=box[2], y1=box[3]))
    for x, y, *label in said.get("points", ()):
        made.points.append(pb.Point(x=x, y=y, negative=bool(label) and not label[0]))
    if "mask" in said:
        (height, width), counts = said["mask"]["size"], said["mask"]["counts"].encode("ascii")
        made.mask.CopyFrom(pb.VolumeMask(height=height, width=width, counts=counts))
    return made


def volume_event(given: pb.VolumeEvent) -> dict[str, Any]:
    """An event in HTTP's plain form; `piece` for a piece of the result."""
    plain: dict[str, Any] = {"job": given.job, "seq": given.seq, "event": given.WhichOneof("kind")}
    match plain["event"]:
        case "progress":
            told = given.progress
            plain |= {"done": told.done, "total": told.total, "slice": told.slice}
        case "done":
            plain |= _volume_done(given.done)
    return plain


def _volume_done(told: pb.VolumeDone) -> dict[str, Any]:
    frame, rows = told.frame, list(told.frame.affine)
    return {
        "objects": [
            {"object": each.object, "voxels": each.voxels}
            | {name: getattr(each, name) if each.HasField(name) else None for name in ("first", "last")}
            for each in told.objects
        ],
        "format": pb.VolumeFormat.Name(told.format).removeprefix("VOLUME_").lower(),
        "bytes": told.bytes,
        "frame": {
            "size": list(frame.size),
            "spacing_mm": list(frame.spacing_mm) or None,
            "affine": [rows[n : n + 4] for n in range(0, len(rows), 4)] or None,
            "modality": frame.modality,
        },
        "stages_ms": dict(told.meta.stages_ms),
        "model": _model(told.meta.model),
        "request_id": told.meta.request_id,
    }


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
        "model": _model(meta.model),
        "features": meta.features,
        "stages_ms": dict(meta.stages_ms),
        "request_id": meta.request_id,
    }


def _model(given: pb.Model) -> Model:
    return Model(given.name, given.family, given.pool, given.digest, dict(given.engines), given.precision, given.demonstration)


def _frame(given: pb.Frame) -> Frame:
    spacing, orientation = tuple(given.spacing_mm) or None, tuple(given.orientation) or None
    return Frame(given.width, given.height, spacing, orientation, given.modality)


def _mask(given: pb.Mask, size: tuple[int, int]) -> Mask:
    polygons = tuple(np.frombuffer(each.xy, "<f4") for each in given.polygons)
    logits = np.frombuffer(given.logits, "<f2").reshape(256, 256) if given.logits else None
    form = pb.MaskFormat.Name(given.format).lower()
    return Mask(given.object, given.score, given.area_px, tuple(given.box) or None, size, form, given.data, polygons, logits)
