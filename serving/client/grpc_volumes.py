"""A VolumeCall -> protobuf, and a job's events -> the plain form that HTTP has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from serving.client import grpc_wire
from serving.client.results import VolumeSegmentation
from serving.client.volumes import Stream, VolumeCall
from serving.edge.proto import inference_pb2 as pb

FORMATS: Mapping[str, Any] = {"nifti": pb.VOLUME_NIFTI, "nrrd": pb.VOLUME_NRRD, "packed": pb.VOLUME_PACKED}


def segment_volume(call: VolumeCall) -> pb.SegmentVolumeRequest:
    """The request that brings a volume."""
    body = call.body
    volume = pb.Volume(files=call.files, media_type=call.media_type)
    if "window" in body:
        volume.window.CopyFrom(grpc_wire.window(body["window"]))
    said = [{"box": box, "slice": body.get("slice")} for box in body.get("boxes", ())]
    return pb.SegmentVolumeRequest(
        model=call.options.get("model") or "",
        volume=volume,
        objects=[_object(each) for each in (*said, *body.get("objects", ()))],
        axis=body.get("axis"),
        output=FORMATS.get(body.get("output", "nifti"), len(FORMATS) + 1),
        keep=bool(body.get("keep")),
        classes=body.get("classes", ()),
        supports=body.get("supports", ""),
    )


def rpc(call: VolumeCall, stream: Stream) -> tuple[str, Message]:
    """(path, request): of a new job, or of one that is taken up again."""
    if stream.job:
        return f"/{grpc_wire.SERVICE}/FollowVolume", pb.FollowVolumeRequest(job=stream.job, after=stream.after)
    return f"/{grpc_wire.SERVICE}/SegmentVolume", segment_volume(call)


def _object(said: Mapping[str, Any]) -> pb.VolumeObject:
    box = said.get("box")
    made = pb.VolumeObject(**{name: said.get(name) for name in ("slice", "first", "last", "label")})
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


def take(given: pb.VolumeEvent, stream: Stream, pieces: list[bytes]) -> None:
    """One message of a job's stream: an event, or a piece of its result. Raises what `Stream.feed` does."""
    if given.piece:
        pieces.append(given.piece)
    else:
        stream.feed(_event(given))


def result(stream: Stream, pieces: list[bytes]) -> VolumeSegmentation:
    """The answer of a job that is done."""
    return stream.result(b"".join(pieces), stream.done["model"], stream.done["request_id"])


def _event(given: pb.VolumeEvent) -> dict[str, Any]:
    """An event in HTTP's plain form."""
    plain: dict[str, Any] = {"job": given.job, "seq": given.seq, "event": given.WhichOneof("kind")}
    match plain["event"]:
        case "locating":
            plain |= {"done": given.locating.done, "total": given.locating.total}
        case "progress":
            told = given.progress
            plain |= {"done": told.done, "total": told.total, "slice": told.slice}
        case "done":
            plain |= _done(given.done)
    return plain


def _done(told: pb.VolumeDone) -> dict[str, Any]:
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
        "model": grpc_wire.model_of(told.meta.model),
        "request_id": told.meta.request_id,
    }
