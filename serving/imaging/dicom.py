"""DICOM -> Image: one frame, decompressed, through Modality LUT, VOI and MONOCHROME1's inversion (PS3.3 C.7.6.3, C.11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import RLELossless

from serving.domain.image import Image, RangeWindow, View
from serving.errors import Fault, Kind
from serving.imaging import codestream, window
from serving.imaging.bounds import check_decoded, check_picture, invalid, malformed
from serving.imaging.dicom_file import ends_early, parse, sop_class
from serving.imaging.dicom_frame import frame_of
from serving.imaging.dicom_lut import modality_lut, shade, voi
from serving.imaging.levels import Levels, Samples, pointwise
from serving.imaging.view import choose
from serving.settings import LimitSettings

ACCEPTED_SYNTAXES = "uncompressed, deflated, RLE, JPEG (baseline, extended, lossless), JPEG-LS and JPEG 2000"
"""Transfer syntaxes that are read, in words."""

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read(data: bytes, view: View, limits: LimitSettings) -> Image:
    """The frame that a view asks for -> Image; gray for MONOCHROME1 and 2, RGB for colour.

    Only that frame is decompressed. Raises Fault: INVALID (no pixels, several frames and no index, a colour space that is not
    read), UNSUPPORTED_MEDIA (transfer syntax), TOO_LARGE, MALFORMED.
    """
    dataset = parse(data, limits)
    if not any(keyword in dataset for keyword in _PIXELS):
        if ends_early(dataset):
            raise malformed("the DICOM file is cut short: it ends before or within its pixel data; send it whole")
        if not sop_class(dataset):
            raise malformed("the DICOM file is damaged or cut short, before it says what it is: send it whole")
        raise invalid("the DICOM file holds no pixel data (a report, plan or structure set?): send an image object")
    index = _check(dataset, view, limits)
    samples, photometric = _decompress(dataset, index)
    frame = frame_of(dataset, index)
    match photometric:
        case "MONOCHROME1" | "MONOCHROME2":
            pixels = _gray(dataset, index, samples, view, frame.modality, inverted=photometric == "MONOCHROME1")
        case "PALETTE COLOR":
            pixels = _colour(apply_color_lut(samples, dataset), int(dataset.RedPaletteColorLookupTableDescriptor[2]), view)
        case "RGB":
            pixels = _colour(samples, int(dataset.BitsStored), view)
        case _:
            raise invalid("the DICOM file's Photometric Interpretation is not read: send MONOCHROME, PALETTE COLOR, RGB or YBR")
    return Image(np.ascontiguousarray(pixels), frame)


def stored(dataset: Dataset, index: int) -> tuple[npt.NDArray[Any], str]:
    """One frame's stored values (rows, columns[, 3]) in native byte order, and its colour space. Raises Fault."""
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel") or 1)
        _check_codestream(dataset, index, max(1, frames), max(1, samples))
    return _decompress(dataset, index)


def _check(dataset: Dataset, view: View, limits: LimitSettings) -> int:
    """Hold the header against the limits; give the index of the frame."""
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    check_picture(columns, rows, limits)
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    index = choose(view, frames, "frame")
    samples = max(1, int(dataset.get("SamplesPerPixel") or 1))
    check_decoded((frames, rows, columns, samples), max(1, int(dataset.get("BitsAllocated") or 8) // 8), limits)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        _check_codestream(dataset, index, frames, samples)
    return index


def _check_codestream(dataset: Dataset, index: int, frames: int, samples: int) -> None:
    """The compressed frame must be of the size that the data set declares, before it is unfolded."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_deflated or syntax == RLELossless or "PixelData" not in dataset:
        return
    table, lengths = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    offsets = (table, lengths) if table and lengths else None
    coded = get_frame(dataset.PixelData, index, number_of_frames=frames, extended_offsets=offsets)
    found = codestream.jpeg(coded) or codestream.jpeg_2000(coded)
    if found is None and not _available(dataset):
        return  # told as an unsupported transfer syntax when it is decompressed
    if found != codestream.Size(int(dataset.Columns), int(dataset.Rows), samples):
        raise malformed("the DICOM file's compressed frame is damaged, or not of the size that Rows and Columns say")


def _available(dataset: Dataset) -> bool:
    try:
        return bool(get_decoder(dataset.file_meta.TransferSyntaxUID).is_available)
    except NotImplementedError:
        return False


def _decompress(dataset: Dataset, index: int) -> tuple[npt.NDArray[Any], str]:
    """One frame (rows, columns) or (rows, columns, 3) in native byte order, and its colour space; YBR has become RGB."""
    if not _available(dataset):
        raise Fault(
            Kind.UNSUPPORTED_MEDIA,
            f"the DICOM file's transfer syntax is not read; accepted are {ACCEPTED_SYNTAXES}",
            param="image",
        )
    plain = "PixelData" in dataset and not dataset.file_meta.TransferSyntaxUID.is_compressed
    if plain and len(dataset.PixelData) < get_expected_length(dataset):
        raise malformed("the DICOM file is cut short: it holds fewer pixels than its header says; send it whole")
    samples, properties = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, index=index)
    return samples.astype(samples.dtype.newbyteorder("="), copy=False), str(properties["photometric_interpretation"])


def _gray(dataset: Dataset, index: int, stored: Samples, view: View, modality: str, *, inverted: bool) -> window.Bytes:
    """Stored values stay as deep as they are until the window."""
    if stored.ndim != 2:
        raise malformed("the DICOM file says MONOCHROME and has several samples a pixel")
    to_values = modality_lut(dataset, index)
    padding = _padding(dataset)
    levels = Levels.of(stored)
    population = (levels.without(padding) if padding else levels).mapped(to_values)
    through = voi(dataset, index, view.window, population, modality)

    def shown(values: Samples) -> Samples:
        pixels = shade(to_values(values), through)
        return np.subtract(255, pixels, dtype=np.uint8) if inverted else pixels

    return pointwise(stored, shown)


def _padding(dataset: Dataset) -> Callable[[Samples], npt.NDArray[np.bool_]] | None:
    """Which stored values are Pixel Padding (PS3.3 C.7.5.1.1.2): left out of percentiles and extremes."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    return lambda values: (values >= low) & (values <= high)


def _colour(samples: Samples, bits: int, view: View) -> window.Bytes:
    """(rows, columns, 3) of any depth -> uint8 over the full range of `bits`, or the request's window on all channels."""
    if samples.ndim != 3 or samples.shape[2] != 3:
        raise invalid("the DICOM file's colours are not three samples a pixel: send RGB, YBR or PALETTE COLOR")
    if view.window is None and samples.dtype == np.uint8 and bits == 8:
        return samples
    return window.apply(samples, view.window or RangeWindow(0, 2.0**bits - 1))
