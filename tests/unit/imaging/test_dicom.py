"""DICOM against pydicom's own pipeline, on the files that pydicom carries."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.sequence import Sequence

from serving.domain.image import EncodedImage, LinearWindow, View
from serving.errors import Fault, Kind
from serving.imaging.decode import decode
from serving.imaging.dicom_lut import DEFAULTS
from serving.settings import LimitSettings

LIMITS = LimitSettings()


def data_of(name):
    return Path(get_testdata_file(name, download=False)).read_bytes()


def read(data, **view):
    return decode(EncodedImage(data, "application/dicom", view=View(**view)), LIMITS)


def saved(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def edited(name, **elements):
    dataset = pydicom.dcmread(io.BytesIO(data_of(name)))
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


GRAY = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "JPEG2000.dcm", "JPGExtended.dcm",
    "JPEGLSNearLossless_16.dcm", "693_J2KI.dcm", "examples_overlay.dcm", "image_dfl.dcm",
]  # fmt: skip


@pytest.mark.parametrize("name", GRAY)
def test_gray_files_of_every_transfer_syntax_show_their_own_window(name):
    data = data_of(name)
    dataset = pydicom.dcmread(io.BytesIO(data))
    found = read(data)
    assert found.frame.size_px == (dataset.Columns, dataset.Rows)
    assert found.frame.modality == dataset.get("Modality", "")
    values = apply_modality_lut(pixel_array(dataset), dataset)
    if "WindowCenter" not in dataset:
        assert found.pixels.min() < found.pixels.max()
        return
    shown = apply_voi_lut(values, dataset, index=0).astype(np.float64)
    low, high = values.min(), values.max()
    # pydicom maps the window to the range of the stored type: bring both to 0..1 at the window's ends.
    stored = apply_modality_lut(np.array(_stored_range(dataset)), dataset)
    expected = (shown - stored[0]) / (stored[1] - stored[0]) * 255
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        expected = 255 - expected
    assert low < high
    assert np.abs(found.pixels - expected).max() <= 1.01


def _stored_range(dataset):
    bits = dataset.BitsStored
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if dataset.PixelRepresentation else (0, (1 << bits) - 1)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_bigendian.dcm"]
)
def test_lossless_syntaxes_show_the_same_picture(name):
    assert np.array_equal(read(data_of(name)).pixels, read(data_of("MR_small.dcm")).pixels)


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle.dcm", "examples_palette.dcm", "SC_rgb_small_odd.dcm"])
def test_colours_are_rgb(name):
    dataset = pydicom.dcmread(io.BytesIO(data_of(name)))
    found = read(data_of(name))
    assert found.pixels.shape == (dataset.Rows, dataset.Columns, 3)
    if "PALETTE" not in dataset.PhotometricInterpretation and dataset.BitsAllocated == 8:
        assert np.array_equal(found.pixels, pixel_array(dataset))


def test_the_request_s_window_is_above_the_file_s():
    dataset = edited("CT_small.dcm", WindowCenter=40, WindowWidth=80)
    hounsfield = apply_modality_lut(pixel_array(dataset), dataset)
    found = read(saved(dataset), window=LinearWindow(300, 1500)).pixels
    expected = ((hounsfield.clip(-450, 1050) + 450) / 1500 * 255).astype(np.uint8)
    assert np.array_equal(found, expected)
    assert not np.array_equal(read(saved(dataset)).pixels, expected)


def test_a_ct_without_a_window_gets_the_documented_one():
    dataset = edited("CT_small.dcm")
    assert "WindowCenter" not in dataset
    window = DEFAULTS["CT"]
    assert np.array_equal(read(saved(dataset)).pixels, read(saved(dataset), window=window).pixels)


def test_sixteen_bits_are_kept_until_the_window():
    dataset = edited("CT_small.dcm")
    narrow = read(saved(dataset), window=LinearWindow(40, 10)).pixels
    assert len(np.unique(narrow)) > 8


def test_monochrome1_is_inverted():
    plain = read(saved(edited("MR_small.dcm"))).pixels
    inverted = read(saved(edited("MR_small.dcm", PhotometricInterpretation="MONOCHROME1"))).pixels
    assert np.array_equal(inverted, 255 - plain)


def test_a_modality_lut_and_a_voi_lut_are_looked_up():
    dataset = edited("MR_small.dcm")
    first, count = int(pixel_array(dataset).min()), 4096
    lut = pydicom.Dataset()
    lut.LUTDescriptor, lut.LUTData, lut.ModalityLUTType = [count, first, 16], list(range(0, 2 * count, 2)), "US"
    dataset.ModalityLUTSequence = Sequence([lut])
    for element in lut:
        element.VR = "US" if element.keyword != "ModalityLUTType" else element.VR
    dataset.WindowCenter, dataset.WindowWidth = 600, 1000
    values = (pixel_array(dataset).astype(int) - first) * 2
    expected = ((values - (600 - 0.5)) / 999 + 0.5).clip(0, 1) * 255
    assert np.abs(read(saved(dataset)).pixels - expected).max() <= 1


def test_frames_are_chosen_by_index_and_nothing_else():
    data = data_of("rtdose.dcm")
    frames = pixel_array(pydicom.dcmread(io.BytesIO(data)))
    shown = [read(data, index=n).pixels for n in (0, 3)]
    assert shown[0].shape == frames[0].shape
    assert not np.array_equal(*shown)
    with pytest.raises(Fault, match="index, 0 to 14") as caught:
        read(data)
    assert caught.value.kind is Kind.INVALID
    with pytest.raises(Fault, match="15 frames"):
        read(data, index=15)


def test_spacing_and_orientation_are_told():
    frame = read(data_of("CT_small.dcm")).frame
    assert frame.spacing_mm == pytest.approx((0.661468, 0.661468))
    assert frame.orientation == (1, 0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    ("name", "kind"), [("rtplan.dcm", Kind.INVALID), ("reportsi.dcm", Kind.INVALID), ("MR_truncated.dcm", Kind.MALFORMED)]
)
def test_what_has_no_picture_says_so(name, kind):
    with pytest.raises(Fault) as caught:
        read(data_of(name))
    assert caught.value.kind is kind


WITHIN, BEFORE, FEWER = "within its pixel data", "before it says what it is", "fewer pixels than its header says"


@pytest.mark.parametrize(
    ("name", "kept", "told"),
    [
        ("CT_small.dcm", 150, BEFORE),  # within the file meta information
        ("CT_small.dcm", 3000, WITHIN),  # before Rows
        ("CT_small.dcm", 6000, WITHIN),  # before the pixels
        ("CT_small.dcm", 20000, FEWER),
        ("MR_small_RLE.dcm", 5000, WITHIN),
        ("JPEG2000.dcm", 3100, WITHIN),
        ("rtplan.dcm", 150, BEFORE),
        ("rtplan.dcm", 2000, "no pixel data"),
    ],
)
def test_a_file_that_is_cut_short_says_so(name, kept, told):
    with pytest.raises(Fault, match=told) as caught:
        read(data_of(name)[:kept])
    assert (caught.value.kind is Kind.INVALID) == (told == "no pixel data")
    assert "\n" not in caught.value.message


def test_a_header_that_lies_is_refused_before_memory_is_spent():
    with pytest.raises(Fault) as caught:
        read(saved(edited("MR_small.dcm", Rows=60000, Columns=60000)))
    assert caught.value.kind is Kind.TOO_LARGE
    with pytest.raises(Fault) as caught:
        read(saved(edited("MR_small_jp2klossless.dcm", Rows=32)))
    assert caught.value.kind is Kind.MALFORMED


def test_no_fault_names_the_patient():
    dataset = edited("CT_small.dcm", PatientName="Secret^Person", Rows=None)
    with pytest.raises(Fault) as caught:
        read(saved(dataset))
    assert "Secret" not in caught.value.message
