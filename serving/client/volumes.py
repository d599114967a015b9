"""A volume to its masks from the client's side: the call, and what a stream of events adds up to, the same for both wires.

A stream that breaks is taken up again where it was, by the job's id; a caller that gives up cancels the job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from serving.client.calls import Options
from serving.client.fault import MedserveError
from serving.client.results import FoundObject, Model, Progress, VolumeFrame, VolumeSegmentation

VolumeInput = str | PathLike[str] | bytes | Sequence[str | PathLike[str] | bytes]
"""A file (.nii, .nii.gz, .nrrd, .dcm, .zip), its bytes, a folder with a DICOM series, or the files of one."""
OnProgress = Callable[[Progress], None]

RESUMES = 5
"""How often in a row a broken stream is taken up again without anything new from it."""
RESUME_S = 0.5
_BROKEN = ("unreachable", "deadline_exceeded", "unavailable", "not_found")
_MEDIA = {
    ".nii": "application/nifti",
    ".nii.gz": "application/nifti",
    ".nrrd": "application/nrrd",
    ".dcm": "application/dicom",
    ".zip": "application/zip",
}


class VolumeOptions(Options, total=False):
    """`boxes`: [x0, y0, z0, x1, y1, z1] each, both slices included, or four numbers with `slice`. `objects`: the general form.

    `classes`: names of structures that the model finds by the support set `supports`.
    `window`: {center, width}, {low, high, nonzero} in percent, or {minimum, maximum}. `axis`: slices are counted along it (2).
    """

    boxes: Sequence[Sequence[float]]
    slice: int
    objects: Sequence[dict[str, Any]]
    classes: Sequence[str]
    supports: str
    window: dict[str, Any]
    axis: int
    output: Literal["nifti", "nrrd", "packed"]


@dataclass(frozen=True)
class VolumeCall:
    """One call: the volume's files, its plain body without them, and the caller's options."""

    files: tuple[bytes, ...]
    media_type: str
    body: dict[str, Any]
    options: Options


def call(volume: VolumeInput, said: dict[str, Any]) -> VolumeCall:
    """A method's arguments -> VolumeCall. Raises ValueError for a folder without files."""
    given = {name: value for name, value in said.items() if value is not None}
    options = Options(**{name: given.pop(name) for name in tuple(given) if name in Options.__annotations__})  # type: ignore[typeddict-item]
    body = dict(given)
    if "boxes" in body:
        body["boxes"] = [[float(v) for v in row] for row in body["boxes"]]
    if "objects" in body:
        body["objects"] = [{**each, "mask": _rle(each["mask"])} if "mask" in each else each for each in body["objects"]]
    files, media_type = _files(volume)
    return VolumeCall(files, media_type, {**body, "keep": True}, options)


@dataclass
class Stream:
    """What has come of a job's events so far. `feed` takes them as the wires give them, in plain values."""

    progress: OnProgress | None = None
    axis: int = 2
    job: str = ""
    seq: int = -1
    done: dict[str, Any] = field(default_factory=dict)
    empty: int = 0

    def feed(self, event: dict[str, Any]) -> None:
        """One event. Raises MedserveError for a job's failure, and whatever `progress` raises."""
        if event["seq"] <= self.seq:
            return
        self.seq, self.empty = event["seq"], 0
        self.job = event.get("job") or self.job
        match event["event"]:
            case "locating" if self.progress is not None:
                self.progress(Progress(self.job, event["done"], event["total"], stage="locate"))
            case "progress" if self.progress is not None:
                self.progress(Progress(self.job, event["done"], event["total"], event["slice"]))
            case "done":
                self.done = event
            case "failed":
                error = event["error"]
                raise MedserveError(error["code"], error["message"], 200, None, error["param"], error["request_id"])
            case "cancelled":
                raise MedserveError("cancelled", "the job was cancelled", 200)

    @property
    def after(self) -> int:
        """The `seq` to go on behind: over gRPC the result follows its last event, so that one is asked for again."""
        return self.seq - 1 if self.done else self.seq

    def may_resume(self, error: MedserveError) -> bool:
        """Whether a broken stream is to be taken up again: the job is known, and the connection is at fault.

        That it is unknown may be another node's word, which the next call need not reach.
        """
        self.empty += 1
        return bool(self.job) and self.empty <= RESUMES and error.code in _BROKEN

    def result(self, data: bytes, model: Model, request_id: str) -> VolumeSegmentation:
        """The answer."""
        done, frame = self.done, self.done["frame"]
        return VolumeSegmentation(
            model=model,
            features="",
            stages_ms=done["stages_ms"],
            request_id=request_id,
            job=self.job,
            data=data,
            format=done["format"],
            objects=tuple(FoundObject(**each) for each in done["objects"]),
            frame=VolumeFrame(
                tuple(frame["size"]),
                None if frame["spacing_mm"] is None else tuple(frame["spacing_mm"]),
                None if frame["affine"] is None else tuple(tuple(row) for row in frame["affine"]),
                frame["modality"],
            ),
            axis=self.axis,
        )


def _files(volume: VolumeInput) -> tuple[tuple[bytes, ...], str]:
    if isinstance(volume, bytes):
        return (volume,), ""
    if isinstance(volume, str | PathLike):
        path = Path(volume)
        if not path.is_dir():
            name = path.name.lower()
            return (path.read_bytes(),), next((kind for suffix, kind in _MEDIA.items() if name.endswith(suffix)), "")
        names = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        volume = [each for each in names if each.name.upper() != "DICOMDIR"]
    files = tuple(each if isinstance(each, bytes) else Path(each).read_bytes() for each in volume)
    if not files:
        raise ValueError("there are no files: give the DICOM files of one series")
    return files, ""


def _rle(mask: npt.NDArray[Any] | dict[str, Any]) -> dict[str, Any]:
    """A mask (rows, columns) -> COCO's {size, counts}, without compression's own library: one run a number."""
    if isinstance(mask, dict):
        return mask
    from serving.client.decode import rle_of

    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": rle_of(mask).decode("ascii")}
