"""PNG, JPEG, TIFF and raw samples, and whatever is sent instead of them."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from pydicom.data import get_testdata_file

from serving.domain.image import EncodedImage, RangeWindow, RawLayout, View
from serving.errors import Fault, Kind
from serving.imaging.decode import decode
from serving.settings import LimitSettings

LIMITS = LimitSettings()
GRAY = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)


def file(pixels, kind, **options):
    buffer = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data, media_type="", raw=None, **view):
    return decode(EncodedImage(data, media_type, raw, View(**view)), LIMITS).pixels


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("pixels", [GRAY, COLOUR], ids=["gray", "colour"])
def test_lossless_pictures_come_as_they_are(kind, pixels):
    assert np.array_equal(read(file(pixels, kind)), pixels)


def test_a_jpeg_is_pillow_s():
    data = file(COLOUR, "JPEG", quality=95)
    assert np.array_equal(read(data, "image/jpeg"), np.asarray(Image.open(io.BytesIO(data))))


def test_palettes_become_rgb_alpha_is_dropped_and_one_bit_is_black_and_white():
    palette = Image.fromarray(COLOUR).quantize(8)
    assert np.array_equal(read(file(palette, "PNG")), np.asarray(palette.convert("RGB")))
    alpha = Image.fromarray(np.dstack([COLOUR, GRAY]))
    assert np.array_equal(read(file(alpha, "PNG")), COLOUR)
    assert set(np.unique(read(file(Image.fromarray(GRAY > 99), "PNG")))) == {0, 255}


def test_sixteen_bits_are_windowed():
    deep = (GRAY.astype(np.uint16) << 4) + 1000
    found = read(file(deep, "PNG"), window=RangeWindow(1000, 1000 + 255 * 16))
    assert np.abs(found.astype(int) - GRAY).max() <= 1
    low, high = np.percentile(deep[deep > 0], [0.5, 99.5])
    assert np.array_equal(read(file(deep, "TIFF")), ((deep.clip(low, high) - low) / (high - low) * 255).astype(np.uint8))


def test_exif_turns_the_picture_as_viewers_do():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read(file(COLOUR, "JPEG", exif=exif)).shape == (30, 20, 3)


def test_pages_of_a_tiff_are_chosen_by_index():
    buffer = io.BytesIO()
    Image.fromarray(GRAY).save(buffer, "TIFF", save_all=True, append_images=[Image.fromarray(255 - GRAY)])
    assert np.array_equal(read(buffer.getvalue(), index=1), 255 - GRAY)
    with pytest.raises(Fault, match="2 pages"):
        read(buffer.getvalue())


def test_raw_samples_are_read_as_declared():
    assert np.array_equal(read(GRAY.tobytes(), raw=RawLayout("uint8", GRAY.shape)), GRAY)
    values = GRAY.astype("<f4") / 255
    assert (
        np.abs(read(values.tobytes(), raw=RawLayout("float32", GRAY.shape), window=RangeWindow(0, 1)).astype(int) - GRAY).max()
        <= 1
    )
    with pytest.raises(Fault, match="are 600") as caught:
        read(GRAY.tobytes()[:-1], raw=RawLayout("uint8", GRAY.shape))
    assert caught.value.kind is Kind.MALFORMED


def test_a_media_type_that_the_content_is_not_is_refused():
    for data, media_type in ((file(GRAY, "PNG"), "image/jpeg"), (file(GRAY, "GIF"), ""), (b"%PDF-1.7" + bytes(200), "")):
        with pytest.raises(Fault) as caught:
            read(data, media_type)
        assert caught.value.kind is Kind.UNSUPPORTED_MEDIA


def test_large_pictures_are_refused_by_their_header():
    huge = Image.new("1", (9000, 9000))
    with pytest.raises(Fault, match="9000 x 9000") as caught:
        read(file(huge, "PNG"))
    assert caught.value.kind is Kind.TOO_LARGE


WHOLE = {
    "png": file(COLOUR, "PNG"),
    "jpeg": file(COLOUR, "JPEG"),
    "tiff": file(GRAY, "TIFF"),
    "dicom": Path(get_testdata_file("MR_small_jp2klossless.dcm", download=False)).read_bytes(),
    "rle": Path(get_testdata_file("MR_small_RLE.dcm", download=False)).read_bytes(),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_is_cut_short_is_one_fault(name):
    for share in (0.15, 0.4, 0.7, 0.95):
        data = WHOLE[name]
        with pytest.raises(Fault) as caught:
            read(data[: int(len(data) * share)])
        assert "\n" not in caught.value.message


@given(some.sampled_from(sorted(WHOLE)), some.data())
def test_damaged_bytes_are_a_picture_or_a_fault_and_nothing_else(name, drawn):
    data = bytearray(WHOLE[name])
    for place in drawn.draw(some.lists(some.integers(0, len(data) - 1), min_size=1, max_size=8)):
        data[place] = drawn.draw(some.integers(0, 255))
    with contextlib.suppress(Fault):
        assert read(bytes(data)).dtype == np.uint8


def test_a_panic_in_a_decoder_is_a_fault(monkeypatch):
    panic = type("PanicException", (BaseException,), {})

    def panics(*arguments):
        raise panic("index out of bounds")

    monkeypatch.setattr("serving.imaging.raster.read", panics)
    with pytest.raises(Fault) as caught:
        read(WHOLE["png"])
    assert caught.value.kind is Kind.MALFORMED
    monkeypatch.setattr("serving.imaging.raster.read", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        read(WHOLE["png"])
