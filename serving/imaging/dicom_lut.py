"""DICOM's gray pipeline: Modality LUT (PS3.3 C.11.1), VOI LUT or window (C.11.2), and the default window of a modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from serving.domain.image import LinearWindow, RangeWindow, Window
from serving.imaging import window
from serving.imaging.bounds import malformed
from serving.imaging.dicom_frame import macro
from serving.imaging.levels import Levels, Samples
from serving.imaging.window import Bytes, Span

DEFAULTS: dict[str, Window] = {
    "CT": LinearWindow(40, 400),
    "SEG": RangeWindow(),
    "RTDOSE": RangeWindow(),
}
"""Modality (0008,0060) -> window where neither request nor file names one. Any other modality (MR, PT, NM, CR, DX, MG, XA, RF,
US, ...): 8 bits at most as they are stored, deeper samples by `window.DEFAULT` of the frame."""


@dataclass(frozen=True, eq=False)
class Table:
    """A lookup table. `entries`: (n,) of `bits` bits; the first is for `first` and all below, the last for all above."""

    first: int
    entries: npt.NDArray[np.uint16]
    bits: int

    def __call__(self, values: Samples) -> Samples:
        """Values of any shape -> their entries."""
        index = np.clip(np.floor(values.astype(np.float64)) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.intp)]


@dataclass(frozen=True)
class Rescale:
    """Rescale Slope and Intercept: stored value * slope + intercept."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, values: Samples) -> Samples:
        """Stored values of any shape -> float64, or unchanged where there is nothing to do."""
        if self.slope == 1.0 and self.intercept == 0.0:
            return values
        return values.astype(np.float64) * self.slope + self.intercept


@dataclass(frozen=True)
class Sigmoid:
    """VOI LUT Function SIGMOID: 255 / (1 + exp(-4 (x - center) / width)), C.11.2.1.3.1."""

    center: float
    width: float


Modality = Table | Rescale
Voi = Table | Span | Sigmoid


def modality_lut(dataset: Dataset, frame: int) -> Modality:
    """The Modality LUT of a frame: a LUT sequence, or slope and intercept, or nothing to do."""
    source = macro(dataset, frame, "PixelValueTransformationSequence")
    if source.get("ModalityLUTSequence"):
        return _table(source.ModalityLUTSequence[0], dataset, signed=int(dataset.get("PixelRepresentation") or 0) == 1)
    slope, intercept = _first(source.get("RescaleSlope")), _first(source.get("RescaleIntercept"))
    return Rescale(1.0 if slope is None else slope, 0.0 if intercept is None else intercept)


def voi(dataset: Dataset, frame: int, chosen: Window | None, population: Levels, modality: str) -> Voi:
    """The request's window, over the file's first VOI LUT, over its first window, over the modality's default.

    `population`: the frame's levels after the Modality LUT, without padding.
    """
    if chosen is not None:
        return window.span(chosen, population)
    source = macro(dataset, frame, "FrameVOILUTSequence")
    if source.get("VOILUTSequence"):
        return _table(source.VOILUTSequence[0], dataset, signed=population.extent()[0] < 0)
    stated = _stated_window(source)
    return stated if stated is not None else window.span(_default(dataset, modality), population)


def shade(values: Samples, through: Voi) -> Bytes:
    """Values after the Modality LUT -> uint8, 0..255, by truncation."""
    match through:
        case Span():
            return window.stretch(values, through)
        case Table():
            return (through(values) / (2.0**through.bits - 1) * 255).clip(0, 255).astype(np.uint8)
        case Sigmoid(center, width):
            exponent = np.clip(-4 * (values.astype(np.float64) - center) / width, -700, 700)
            return np.asarray(255 / (1 + np.exp(exponent))).astype(np.uint8)


def _stated_window(source: Dataset) -> Span | Sigmoid | None:
    """The first Window Center and Width; None where there is none, or none that C.11.2.1.2 allows."""
    center, width = _first(source.get("WindowCenter")), _first(source.get("WindowWidth"))
    if center is None or width is None or not np.isfinite([center, width]).all() or width <= 0:
        return None
    match str(source.get("VOILUTFunction") or "LINEAR").strip():
        case "SIGMOID":
            return Sigmoid(center, width)
        case "LINEAR_EXACT":
            return Span(center - width / 2, center + width / 2)
        case _ if width >= 1:  # LINEAR, C.11.2.1.2.1: the -0.5 and the -1 are the standard's
            return Span(center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2)
        case _:
            return None


def _default(dataset: Dataset, modality: str) -> Window:
    bits = int(dataset.get("BitsStored") or 0)
    shallow = 0 < bits <= 8 and "PixelData" in dataset and modality_lut(dataset, 0) == Rescale()
    if modality not in DEFAULTS and shallow:
        signed = int(dataset.get("PixelRepresentation") or 0) == 1
        lowest = -(2.0 ** (bits - 1)) if signed else 0.0
        return RangeWindow(lowest, lowest + 2.0**bits - 1)
    return DEFAULTS.get(modality, window.DEFAULT)


def _table(item: Dataset, dataset: Dataset, *, signed: bool) -> Table:
    """A LUT of C.11.1.1 or C.11.2.1.1: Descriptor (entries, first value, bits an entry) and Data."""
    count, first, bits = (int(n) for n in item.LUTDescriptor)
    count = count or 1 << 16
    first = first - (1 << 16) if signed and first > 0x7FFF else first
    entries = _entries(item.LUTData, count, dataset)
    if not (1 <= bits <= 16 and 1 <= len(entries) == count):
        raise malformed("the DICOM file's lookup table does not match its descriptor")
    return Table(first, entries.astype(np.uint16), bits)


def _entries(data: Any, count: int, dataset: Dataset) -> npt.NDArray[Any]:
    if isinstance(data, bytes):
        if count <= len(data) < 2 * count:
            return np.frombuffer(data, np.uint8, count)
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        return np.frombuffer(data, "<u2" if little else ">u2")[:count]
    return np.atleast_1d(np.asarray(data, np.int64)).astype(np.uint16)[:count]


def _first(value: Any) -> float | None:
    """The first of one or several decimal strings, or None."""
    if value is None or value == "":
        return None
    values = value if hasattr(value, "__len__") and not isinstance(value, str) else [value]
    return float(values[0]) if len(values) else None
