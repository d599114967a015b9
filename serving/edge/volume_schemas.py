"""The JSON bodies of volumes as pydantic models: see `schemas`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.edge.schemas import Base64, ErrorLine, LinearWindow, ModelLine, PercentileWindow, RangeWindow


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class VolumeMask(_Body):
    """A mask on a key slice, as COCO has it."""

    size: list[int] = Field(min_length=2, max_length=2)
    """[height, width] of the slice."""
    counts: str


class VolumeObjectBody(_Body):
    """One object in a volume: a six-number box; or a box, points or a mask on `slice`, between `first` and `last`."""

    box: Annotated[list[float], Field(min_length=4, max_length=6)] | None = None
    """[x0, y0, z0, x1, y1, z1], or [x0, y0, x1, y1] on `slice`."""
    points: list[Annotated[list[float], Field(min_length=2, max_length=3)]] = []
    mask: VolumeMask | None = None
    slice: int | None = Field(default=None, ge=0)
    """The key slice; the middle of the extent where not given."""
    first: int | None = Field(default=None, ge=0)
    last: int | None = Field(default=None, ge=0)
    label: int | None = Field(default=None, ge=0)
    """Its number in the answer, from 0: entries of one label are one object, shown on several slices."""


class VolumeData(_Body):
    """A file inline."""

    data: Base64
    media_type: str = ""


class VolumeBody(_Body):
    """A volume and objects in it. Either `volume` or `volumes`, the files of one DICOM series."""

    model: str | None = None
    volume: VolumeData | Base64 | None = None
    volumes: list[VolumeData | Base64] = []
    media_type: str = ""
    boxes: list[Annotated[list[float], Field(min_length=4, max_length=6)]] = Field(
        default=[], examples=[[[95, 255, 12, 190, 350, 40]]]
    )
    """One object each: [x0, y0, z0, x1, y1, z1], both slices included; or four numbers with `slice`."""
    classes: list[str] = []
    """Names of structures, for a model that finds them by a support set."""
    supports: str = ""
    """The support set's name on the server."""
    slice: int | None = Field(default=None, ge=0)
    """The key slice of boxes of four numbers."""
    objects: list[VolumeObjectBody] = []
    window: LinearWindow | PercentileWindow | RangeWindow | None = None
    axis: Literal[0, 1, 2] = 2
    """The array axis along which slices are counted."""
    output: Literal["nifti", "nrrd", "packed"] = "nifti"
    keep: bool = False
    """The job goes on when the connection is lost."""


class VolumeFrameBody(_Body):
    """`affine`: three rows of four, voxel index to mm, RAS."""

    size: list[int]
    spacing_mm: list[float] | None
    affine: list[list[float]] | None
    modality: str


class VolumeObjectFound(_Body):
    """What was found of one object."""

    object: int
    voxels: int
    first: int | None
    last: int | None


class VolumeEventLine(_Body):
    """One line of a job's stream; which fields it has, `event` says."""

    seq: int
    event: Literal["accepted", "locating", "progress", "done", "failed", "cancelled"]
    job: str | None = None
    done: int | None = None
    total: int | None = None
    slice: int | None = None
    objects: int | list[int] | list[VolumeObjectFound] | None = None
    frame: VolumeFrameBody | None = None
    model: ModelLine | None = None
    result: str | None = None
    format: Literal["nifti", "nrrd", "packed"] | None = None
    bytes: int | None = None
    stages_ms: dict[str, float] | None = None
    error: ErrorLine | None = None


class VolumeGone(_Body):
    """What became of a job that was deleted."""

    job: str
    state: Literal["cancelled", "deleted"]
