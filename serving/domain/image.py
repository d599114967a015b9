"""Images: as sent (EncodedImage), as referred to (ImageHandle), as pixels (Image) with their Frame."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from serving.errors import Fault, Kind


@dataclass(frozen=True)
class LinearWindow:
    """A VOI window: `center` and `width` in the image's own units after the Modality LUT (DICOM PS3.3 C.11.2.1.2)."""

    center: float
    width: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center) and np.isfinite(self.width) and self.width > 0):
            raise Fault(Kind.INVALID, "window needs a finite center and a width above 0", param="window")


@dataclass(frozen=True)
class PercentileWindow:
    """Clip to percentiles and stretch to 0..255. `nonzero`: percentiles of the voxels above 0, zeros stay 0.

    For a volume the percentiles are those of the whole volume, as MedSAM's `pre_CT_MR.py` takes them.
    """

    low: float
    high: float
    nonzero: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise Fault(Kind.INVALID, "window percentiles need 0 <= low < high <= 100", param="window")


@dataclass(frozen=True)
class RangeWindow:
    """Stretch minimum..maximum (of the image, or the two given) to 0..255."""

    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.minimum, self.maximum) if v is not None]
        if not all(np.isfinite(v) for v in given) or (len(given) == 2 and given[0] >= given[1]):
            raise Fault(Kind.INVALID, "window range needs finite minimum < maximum", param="window")


Window = LinearWindow | PercentileWindow | RangeWindow


@dataclass(frozen=True)
class RawLayout:
    """How to read a body of raw samples: little-endian, C order, `shape` (rows, columns) or (rows, columns, 3)."""

    dtype: Literal["uint8", "uint16", "int16", "float32"]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in ("uint8", "uint16", "int16", "float32"):
            raise Fault(Kind.INVALID, "raw dtype must be uint8, uint16, int16 or float32", param="image.dtype")
        if len(self.shape) not in (2, 3) or any(n < 1 for n in self.shape) or (len(self.shape) == 3 and self.shape[2] != 3):
            raise Fault(Kind.INVALID, "raw shape must be [rows, columns] or [rows, columns, 3]", param="image.shape")


@dataclass(frozen=True)
class View:
    """Which picture of the file: `index` is the frame of a multi-frame DICOM or TIFF, or the slice of a volume.

    `axis` is the array axis that `index` counts along for a volume (as stored, i fastest): 2 is k, the usual axial stack.
    `window` overrides the file's own window.
    """

    index: int | None = None
    axis: int = 2
    window: Window | None = None

    def __post_init__(self) -> None:
        if self.index is not None and self.index < 0:
            raise Fault(Kind.INVALID, "image index must be 0 or more", param="image.index")
        if self.axis not in (0, 1, 2):
            raise Fault(Kind.INVALID, "image axis must be 0, 1 or 2", param="image.axis")


@dataclass(frozen=True)
class EncodedImage:
    """Bytes as the client sent them. Decoded in its pool and nowhere else.

    `media_type`: as declared (``image/png``, ``application/dicom``, ``application/nifti``, ``application/nrrd``,
    ``application/octet-stream`` for raw samples) or empty to tell by content. `sha256`: hex digest of `data`.
    """

    data: bytes
    media_type: str = ""
    raw: RawLayout | None = None
    view: View = View()
    sha256: str = field(default="")

    def __post_init__(self) -> None:
        if not self.data:
            raise Fault(Kind.MALFORMED, "the image is empty: send its bytes", param="image")
        object.__setattr__(self, "sha256", hashlib.sha256(self.data).hexdigest())

    @cached_property
    def _content_key(self) -> str:
        return hashlib.sha256(f"{self.sha256}|{self.raw}|{self.view}".encode()).hexdigest()

    def content_key(self) -> str:
        """Hex digest of bytes, layout and view: what picture this is, whoever sends it."""
        return self._content_key


@dataclass(frozen=True)
class ImageHandle:
    """A handle that `POST /v1/images` gave out. Opaque to clients; `affinity` is the content key that it starts with."""

    id: str

    @property
    def affinity(self) -> str:
        """The key by which the router finds the replica that holds the Features."""
        return self.id.split(".", 1)[0]

    @property
    def model_tag(self) -> str:
        """The tag of the model that made it (`embeddings.keys.model_tag`)."""
        return self.id.rpartition(".")[2][:8]


ImageSource = EncodedImage | ImageHandle


@dataclass(frozen=True)
class Frame:
    """Where pixels lie. Coordinates of prompts and masks are pixels of this frame: x to the right, y down, from 0.

    `size_px` (width, height); `spacing_mm` (x, y) or None where the file has none; `orientation`: row then column
    direction cosines in patient space, LPS (DICOM PS3.3 C.7.6.2.1.1), or None; `modality`: DICOM (0008,0060) or "".
    """

    size_px: tuple[int, int]
    spacing_mm: tuple[float, float] | None = None
    orientation: tuple[float, float, float, float, float, float] | None = None
    modality: str = ""


@dataclass(frozen=True)
class Image:
    """Pixels after the window. `pixels`: (rows, columns, 3) or (rows, columns), uint8, 0..255, RGB or gray."""

    pixels: npt.NDArray[np.uint8]
    frame: Frame
