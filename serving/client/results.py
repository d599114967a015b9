"""What the client gives back. Coordinates are pixels of the image as sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from serving.client import decode


@dataclass(frozen=True)
class Model:
    """Who answered, and, from `models()`, on what terms. `demonstration`: the weights certify nothing.

    `gates`: "engine/version" -> its precision, what the precision gate measured, why lower ones were dropped.
    """

    name: str
    family: str
    pool: str
    digest: str
    engines: dict[str, str]
    precision: str
    demonstration: bool
    licence: str = ""
    prompts: tuple[str, ...] = ()
    limits: dict[str, object] = field(default_factory=dict)
    gates: dict[str, dict[str, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """`spacing_mm` (x, y); `orientation`: row then column direction cosines, LPS; None where the file has none."""

    width: int
    height: int
    spacing_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    modality: str


@dataclass(frozen=True)
class Answer:
    """What every answer says. `features`: "hit", "miss", "coalesced" or ""; `stages_ms`: milliseconds a stage."""

    model: Model
    features: str
    stages_ms: dict[str, float]
    request_id: str


@dataclass(frozen=True)
class Mask:
    """One mask. `score`: the model's own estimate of its IoU; `box`: x0, y0, x1, y1, the last two exclusive.

    `size` (height, width); `logits` (256, 256) float16 where asked for: send them back as `mask` to refine.
    """

    object: int
    score: float
    area_px: int
    box: tuple[int, ...] | None
    size: tuple[int, int]
    format: str
    data: bytes
    polygons: tuple[npt.NDArray[np.float32], ...] = ()
    logits: npt.NDArray[np.float16] | None = None

    @cached_property
    def array(self) -> npt.NDArray[np.bool_]:
        """(height, width) bool. Raises ValueError for polygons: ask for another output."""
        match self.format:
            case "rle":
                return decode.rle(self.data, *self.size)
            case "packed":
                return decode.packed(self.data, *self.size)
            case "png":
                return decode.png(self.data)
            case _:
                raise ValueError("polygons have no pixels: ask for the output rle, packed or png")


@dataclass(frozen=True)
class Segmentation(Answer):
    """Masks in the order of the objects. `image_id`: a handle for further prompts."""

    masks: tuple[Mask, ...]
    frame: Frame
    image_id: str


@dataclass(frozen=True)
class ImageHandle(Answer):
    """An encoded image. It can be given as `image` wherever an image is taken."""

    image_id: str
    frame: Frame
    expires_in_s: float


@dataclass(frozen=True)
class VolumeFrame:
    """`size`: voxels along i, j, k. `affine`: three rows of four, voxel index -> mm in RAS; None where the file has none."""

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None
    affine: tuple[tuple[float, ...], ...] | None
    modality: str


@dataclass(frozen=True)
class FoundObject:
    """One object of a volume: `voxels` in all, the first and last slice that show it, or None."""

    object: int
    voxels: int
    first: int | None
    last: int | None


@dataclass(frozen=True)
class Progress:
    """How far a job is. `stage` "segment": a slice is done, `done` of `total` visits, `slice` its number.

    `stage` "locate", before that: a model that is given names looks for the structures, `done` of `total` steps, no `slice`.
    """

    job: str
    done: int
    total: int
    slice: int | None = None
    stage: Literal["locate", "segment"] = "segment"


@dataclass(frozen=True)
class VolumeSegmentation(Answer):
    """The masks of a volume. `data`: the whole file of `format` (nifti, nrrd or packed), in the volume's own geometry."""

    job: str
    data: bytes
    format: str
    objects: tuple[FoundObject, ...]
    frame: VolumeFrame
    axis: int = 2

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file."""
        Path(path).write_bytes(self.data)

    @property
    def masks(self) -> tuple[npt.NDArray[np.bool_], ...]:
        """Of a packed answer: (slices, rows, columns) bool of each object. Raises ValueError for the others: save them."""
        if self.format != "packed":
            raise ValueError(f"this answer is a {self.format} file: save it, or ask for the output packed")
        columns, rows = (n for each, n in enumerate(self.frame.size) if each != self.axis)
        return decode.volumes(self.data, self.frame.size[self.axis], rows, columns)


@dataclass(frozen=True)
class Classification(Answer):
    """`scores` (images, labels) float32."""

    labels: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    scoring: str


@dataclass(frozen=True)
class Embeddings(Answer):
    """`vectors` (items, dimensions) float32, L2-normalised."""

    vectors: npt.NDArray[np.float32]
