"""Events of a volume job -> plain values: lines of the spool and of HTTP's stream, and what gRPC's messages are made of."""

from __future__ import annotations

from typing import Any

from serving.domain.volume import VolumeAccepted, VolumeAnswer, VolumeEvent, VolumeFrame, VolumeLocating, VolumeProgress
from serving.edge import render
from serving.errors import Fault


def event(seq: int, job: str, given: VolumeEvent) -> dict[str, Any]:
    """One event."""
    match given:
        case VolumeAccepted():
            return {
                "seq": seq,
                "event": "accepted",
                "job": job,
                "objects": given.objects,
                "total": given.slices,
                "frame": frame(given.frame),
                "model": render.model(given.model),
            }
        case VolumeLocating():
            return {"seq": seq, "event": "locating", "done": given.done, "total": given.total}
        case VolumeProgress():
            return {
                "seq": seq,
                "event": "progress",
                "done": given.done,
                "total": given.total,
                "slice": given.slice,
                "objects": list(given.objects),
            }
        case VolumeAnswer():
            return {
                "seq": seq,
                "event": "done",
                "job": job,
                "result": f"/v1/volumes/{job}/result",
                "format": given.format.value,
                "bytes": len(given.data),
                "objects": [
                    {"object": each.object, "voxels": each.voxels, "first": each.first, "last": each.last}
                    for each in given.objects
                ],
                "frame": frame(given.frame),
                "model": render.model(given.model),
                "stages_ms": {name: round(seconds * 1000, 3) for name, seconds in given.stages.items()},
            }


def failed(seq: int, fault: Fault, request_id: str) -> dict[str, Any]:
    """The last event of a job that came to nothing: the error body of everything else."""
    return {"seq": seq, "event": "failed", **render.fault(fault, request_id)}


def frame(given: VolumeFrame) -> dict[str, Any]:
    """Where the voxels lie."""
    return {
        "size": list(given.size),
        "spacing_mm": given.spacing_mm and list(given.spacing_mm),
        "affine": given.affine and [list(row) for row in given.affine],
        "modality": given.modality,
    }
