"""Volumes: as sent, where their voxels lie, what is asked of them, and what is answered, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from serving.domain.image import Frame, Window
from serving.domain.prompt import ObjectPrompt
from serving.errors import Fault, Kind

if TYPE_CHECKING:
    from serving.domain.answer import ModelInfo

Rows = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, eq=False)
class EncodedVolume:
    """Bytes as the client sent them, decoded in a pool and nowhere else.

    `files`: one NIfTI, NRRD, DICOM or ZIP file, or the files of one DICOM series in any order. `window`: the request's own.
    """

    files: tuple[bytes, ...]
    media_type: str = ""
    window: Window | None = None

    def __post_init__(self) -> None:
        if not self.files or not all(self.files):
            raise Fault(Kind.MALFORMED, "the volume is empty: send its bytes", param="volume")

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files))


@dataclass(frozen=True)
class VolumeFrame:
    """Where the voxels of an array [i, j, k] lie.

    `size`: voxels along i, j, k. `spacing_mm` of the three axes, or None. `affine`: three rows of four numbers, voxel index ->
    mm in NIfTI's world (RAS), or None where the file does not say. `modality`: DICOM (0008,0060) or "".
    """

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None = None
    affine: Rows | None = None
    modality: str = ""

    def slices(self, axis: int) -> int:
        """How many slices lie along an axis."""
        return self.size[axis]

    def slice_frame(self, axis: int) -> Frame:
        """The frame of a slice: of the two axes that it keeps, the lower runs to the right and the higher down."""
        across, down = (each for each in range(3) if each != axis)
        spacing = None if self.spacing_mm is None else (self.spacing_mm[across], self.spacing_mm[down])
        return Frame((self.size[across], self.size[down]), spacing, modality=self.modality)


@dataclass(frozen=True, eq=False)
class KeyMask:
    """An object's mask on its key slice: (rows, columns) bool, in pixels of the slice."""

    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class VolumeObject:
    """What is said about one object: on one slice, the key slice, and between which slices it lies.

    `shown`: a box, points, earlier logits or a mask on the key slice. `key`: its number, or None for the middle of `first` to
    `last` (both included). Without these the object is followed until a slice shows nothing of it. `follow`: each slice's
    prompt comes of the mask before it; otherwise what is shown is said on every slice. `label`: its number in the answer,
    which objects on different slices may share; None is its place among the objects.
    """

    shown: ObjectPrompt | KeyMask
    key: int | None = None
    first: int | None = None
    last: int | None = None
    follow: bool = True
    label: int | None = None

    def __post_init__(self) -> None:
        if (self.first is None) != (self.last is None):
            raise Fault(Kind.INVALID, "an object's extent needs both first and last, or neither", param="objects")
        if self.key is None and self.first is None:
            raise Fault(Kind.INVALID, "an object needs its key slice, or the first and the last of its slices", param="objects")
        if self.first is not None and self.last is not None:
            if self.first > self.last:
                raise Fault(Kind.INVALID, "a box needs z0 <= z1: [x0, y0, z0, x1, y1, z1]", param="boxes")
            if self.key is not None and not self.first <= self.key <= self.last:
                raise Fault(Kind.INVALID, "an object's key slice must lie between its first and last", param="objects")

    @property
    def open_ended(self) -> bool:
        """Whether it ends where its mask does."""
        return self.first is None

    def key_slice(self) -> int:
        """The slice to begin with; of an extent the middle, half a slice rounded down, as LiteMedSAM's script has it."""
        if self.key is not None:
            return self.key
        first, last = self.extent(0)
        return int((last - first) / 2 + first)

    def extent(self, slices: int) -> tuple[int, int]:
        """First and last slice, both included, in a volume of so many slices."""
        return (0, slices - 1) if self.first is None or self.last is None else (self.first, self.last)

    def within(self, frame: VolumeFrame, axis: int) -> VolumeObject:
        """This object, or a Fault where a part of it lies outside the volume."""
        slices, of_slice = frame.slices(axis), frame.slice_frame(axis)
        for number in (self.key, self.first, self.last):
            if number is not None and not 0 <= number < slices:
                message = f"slice {number} is not in the volume, whose slices along axis {axis} are 0 to {slices - 1}"
                raise Fault(Kind.INVALID, message, param="boxes")
        if isinstance(self.shown, ObjectPrompt):
            self.shown.within(of_slice)
        elif self.shown.mask.shape != (of_slice.size_px[1], of_slice.size_px[0]):
            width, height = of_slice.size_px
            raise Fault(Kind.INVALID, f"the key slice's mask must be {height} x {width} pixels", param="objects")
        return self


@dataclass(frozen=True, eq=False)
class ClassNames:
    """Structures to be found by name, for models that localise by a support set. `supports`: the set's name on the server."""

    names: tuple[str, ...]
    supports: str = ""

    def __post_init__(self) -> None:
        if not self.names or any(not name.strip() for name in self.names):
            raise Fault(Kind.INVALID, "classes needs names, none of them blank", param="classes")
        if len(set(self.names)) < len(self.names):
            raise Fault(Kind.INVALID, "classes names one twice", param="classes")
        if not self.supports:
            raise Fault(Kind.INVALID, "classes needs supports, the name of a support set", param="supports")


class VolumeFormat(Enum):
    """How a volume's masks leave: a label map as NIfTI (.nii.gz) or NRRD, or packed bits of each object."""

    NIFTI = "nifti"
    NRRD = "nrrd"
    PACKED = "packed"


@dataclass(frozen=True, eq=False)
class SegmentVolume:
    """A volume and objects in it -> their masks on every slice. `axis`: the array axis along which slices are counted."""

    volume: EncodedVolume
    objects: tuple[VolumeObject, ...] | ClassNames
    axis: int = 2
    output: VolumeFormat = VolumeFormat.NIFTI

    def __post_init__(self) -> None:
        if not self.objects:
            raise Fault(Kind.INVALID, "no prompt: send boxes or objects", param="boxes")
        if self.axis not in (0, 1, 2):
            raise Fault(Kind.INVALID, "axis must be 0, 1 or 2", param="axis")
        if not isinstance(self.objects, ClassNames):
            _check_labels(self.objects)


def _check_labels(objects: tuple[VolumeObject, ...]) -> None:
    """What shares a label is one object shown on several slices: each of its slices is said once. Raises Fault(INVALID)."""
    if len({item.label is None for item in objects}) > 1:
        raise Fault(Kind.INVALID, "give every object a label, or none", param="objects")
    labelled = sorted((item.label, item.open_ended, item.extent(0)) for item in objects if item.label is not None)
    for (label, _, before), (other, open_ended, extent) in pairwise(labelled):
        if label == other and (open_ended or extent[0] <= before[1]):
            message = f"what has the label {label} must lie on different slices: give each its first and last"
            raise Fault(Kind.INVALID, message, param="objects")


@dataclass(frozen=True)
class VolumeAccepted:
    """The volume is read and its prompts fit: work begins. `slices`: how many slice visits there are at most."""

    frame: VolumeFrame
    objects: int
    slices: int
    model: ModelInfo


@dataclass(frozen=True)
class VolumeLocating:
    """Between VolumeAccepted and the first slice, where a model looks for its objects itself: `done` of `total` steps."""

    done: int
    total: int


@dataclass(frozen=True)
class VolumeProgress:
    """One slice is done. `done` of `total` visits; `slice`: its number; `objects`: those that were decoded on it."""

    done: int
    total: int
    slice: int
    objects: tuple[int, ...] = ()


@dataclass(frozen=True)
class FoundObject:
    """One object of the answer: `voxels` in all, first and last slice that show it (None where none does)."""

    object: int
    voxels: int
    first: int | None
    last: int | None


@dataclass(frozen=True)
class VolumeAnswer:
    """The whole result as a file of `format`, in the original geometry; who made it, and seconds a stage."""

    data: bytes
    format: VolumeFormat
    frame: VolumeFrame
    objects: tuple[FoundObject, ...]
    model: ModelInfo
    stages: dict[str, float]


VolumeEvent = VolumeAccepted | VolumeLocating | VolumeProgress | VolumeAnswer
