"""DICOM bytes -> a data set that holds what a picture needs and nothing of the patient."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from serving.imaging.bounds import inflate
from serving.settings import LimitSettings

_PALETTE = tuple(
    f"{kind}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
KEYWORDS = (
    *("SOPClassUID", "Modality", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("PixelSpacing", "ImagerPixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SpacingBetweenSlices"),
    "SeriesInstanceUID",
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *_PALETTE,
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "FloatPixelData", "DoubleFloatPixelData", "PixelData"),
)
"""The elements that are read; all others are skipped unread."""

_RAW_DEFLATE_WBITS = -15
_PREAMBLE_BYTES = 132


def parse(data: bytes, limits: LimitSettings) -> Dataset:
    """A DICOM file, or a bare data set -> Dataset with `KEYWORDS` alone and its transfer syntax in `file_meta`.

    Deflated data sets (PS3.5 A.5) are inflated up to `max_decoded_bytes`. Raises Fault, and pydicom's own exceptions.
    """
    marked = data[128:_PREAMBLE_BYTES] == b"DICM"
    stream = BytesIO(data)
    stream.seek(_PREAMBLE_BYTES if marked else 0)
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_beyond_meta)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        plain = inflate(memoryview(data)[stream.tell() :], limits, wbits=_RAW_DEFLATE_WBITS)
        tags = [BaseTag(_tag(keyword)) for keyword in KEYWORDS]
        dataset = read_dataset(BytesIO(plain), is_implicit_VR=False, is_little_endian=True, specific_tags=list(tags))
        return _with_syntax(dataset, ExplicitVRLittleEndian)
    dataset = dcmread(BytesIO(data), force=not marked, specific_tags=list(KEYWORDS))
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        return _with_syntax(
            dataset, ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        )
    return dataset


def header(data: bytes, limits: LimitSettings) -> Dataset:
    """The same without pixels, which are not read; only deflated data sets are read whole. Raises as `parse`."""
    marked = data[128:_PREAMBLE_BYTES] == b"DICM"
    stream = BytesIO(data)
    stream.seek(_PREAMBLE_BYTES if marked else 0)
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_beyond_meta)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return parse(data, limits)
    keywords = [keyword for keyword in KEYWORDS if not keyword.endswith("PixelData")]
    found: Dataset = dcmread(BytesIO(data), force=not marked, specific_tags=keywords, stop_before_pixels=True)
    return found


def sop_class(dataset: Dataset) -> str:
    """The name of its SOP Class (PS3.4 B.5), or empty where it names none: the element is Type 1 (PS3.3 C.12.1).

    Of a file that is cut within its compressed pixels pydicom keeps the file meta information alone, which names it too.
    """
    named = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    return UID(named).name if named else ""


def ends_early(dataset: Dataset) -> bool:
    """Whether a data set without pixels should have some: it has an image's size, or it is of an image's SOP Class."""
    return "Rows" in dataset or "Image Storage" in sop_class(dataset)


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(keyword)
    return tag


def _beyond_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag.group != 2)


def _with_syntax(dataset: Any, syntax: UID) -> Dataset:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    found: Dataset = dataset
    return found
