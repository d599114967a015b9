"""Protobuf <-> the plain bodies of volumes: requests for `volume_wire`, events from `volume_render`."""

from __future__ import annotations

from typing import Any

from serving.edge import grpc_messages, limits
from serving.edge.fields import invalid
from serving.edge.proto import inference_pb2 as pb
from serving.errors import Fault, Kind
from serving.settings import LimitSettings

_FORMATS = {0: "nifti", 1: "nifti", 2: "nrrd", 3: "packed"}
_NUMBERS = {"nifti": pb.VOLUME_NIFTI, "nrrd": pb.VOLUME_NRRD, "packed": pb.VOLUME_PACKED}
_KINDS = {kind.row.code: kind for kind in Kind}


def request_body(given: pb.SegmentVolumeRequest, most: LimitSettings) -> dict[str, Any]:
    """SegmentVolumeRequest as a plain body. Raises Fault."""
    limits.count(len(given.objects), most.max_objects, "objects")
    if given.output not in _FORMATS:
        raise invalid("output", "must be one of VOLUME_NIFTI, VOLUME_NRRD, VOLUME_PACKED")
    body: dict[str, Any] = {
        "model": given.model,
        "volumes": list(given.volume.files),
        "media_type": given.volume.media_type,
        "objects": [_object(each) for each in given.objects],
        "output": _FORMATS[given.output],
        "keep": given.keep,
        "classes": list(given.classes),
        "supports": given.supports,
    }
    if not body["volumes"]:
        raise Fault(Kind.INVALID, "no volume: send its bytes", param="volume")
    if given.HasField("axis"):
        body["axis"] = given.axis
    if given.volume.HasField("window"):
        body["window"] = grpc_messages.image(pb.Image(window=given.volume.window)).get("window")
    return body


def event(job: str, given: dict[str, Any], request_id: str) -> pb.VolumeEvent:
    """An event that is no end without a result."""
    made = pb.VolumeEvent(job=job, seq=given["seq"])
    match given["event"]:
        case "accepted":
            frame, model = _frame(given["frame"]), pb.Model(**given["model"])
            told = pb.VolumeAccepted(objects=given["objects"], total=given["total"], frame=frame, model=model)
            made.accepted.CopyFrom(told)
        case "locating":
            made.locating.CopyFrom(pb.VolumeLocating(done=given["done"], total=given["total"]))
        case "progress":
            numbers = {name: given[name] for name in ("done", "total", "slice", "objects")}
            made.progress.CopyFrom(pb.VolumeProgress(**numbers))
        case "done":
            meta = pb.Meta(model=pb.Model(**given["model"]), stages_ms=given["stages_ms"], request_id=request_id)
            objects = [pb.VolumeFound(**each) for each in given["objects"]]
            form = _NUMBERS[given["format"]]
            done = pb.VolumeDone(objects=objects, format=form, bytes=given["bytes"], frame=_frame(given["frame"]), meta=meta)
            made.done.CopyFrom(done)
    return made


def fault_of(given: dict[str, Any]) -> Fault | None:
    """The fault of an event that is an end without a result, or None."""
    if given["event"] == "cancelled":
        return Fault(Kind.CANCELLED, "the job was cancelled", param="job")
    if given["event"] == "failed":
        error = given["error"]
        return Fault(_KINDS[error["code"]], error["message"], param=error["param"])
    return None


def _object(given: pb.VolumeObject) -> dict[str, Any]:
    body: dict[str, Any] = {"points": [[p.x, p.y, 0 if p.negative else 1] for p in given.points]}
    if given.HasField("box"):
        body["box"] = [given.box.x0, given.box.y0, given.box.x1, given.box.y1]
    if given.HasField("mask"):
        body["mask"] = {"size": [given.mask.height, given.mask.width], "counts": given.mask.counts.decode("ascii", "replace")}
        body["points"] = body["points"] or None
    body.update({name: getattr(given, name) for name in ("slice", "first", "last", "label") if given.HasField(name)})
    return body


def _frame(given: dict[str, Any]) -> pb.VolumeFrame:
    affine = [number for row in given["affine"] or () for number in row]
    return pb.VolumeFrame(size=given["size"], spacing_mm=given["spacing_mm"] or (), affine=affine, modality=given["modality"])
