from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from serving.client.overlay import COLOURS, overlay, write_masks


def test_only_the_mask_is_coloured():
    picture = np.full((4, 5, 3), 100, np.uint8)
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = True
    drawn = overlay(picture, [mask])
    np.testing.assert_array_equal(drawn[~mask], picture[~mask])
    np.testing.assert_array_equal(drawn[1, 2], np.rint(0.55 * 100 + 0.45 * np.array(COLOURS[0])))


@pytest.mark.parametrize(("size", "expected"), [((5, 4), 100), ((9, 9), 0)])
def test_over_the_picture_or_on_black(tmp_path, size, expected):
    Image.new("L", size, 100).save(tmp_path / "in.png")
    assert write_masks(tmp_path / "out.png", tmp_path / "in.png", [np.zeros((4, 5), bool)]) == bool(expected)
    with Image.open(tmp_path / "out.png") as out:
        assert (out.size, out.getpixel((0, 0))) == ((5, 4), (expected,) * 3)


def test_on_black_where_pillow_cannot_read_the_file(tmp_path):
    (tmp_path / "in.dcm").write_bytes(b"DICM")
    assert not write_masks(tmp_path / "out.png", tmp_path / "in.dcm", [np.zeros((4, 5), bool)])
    assert (tmp_path / "out.png").stat().st_size > 0


def test_on_black_and_without_a_word_where_a_dicom_file_begins_like_a_tiff(tmp_path, recwarn):
    assert not write_masks(tmp_path / "out.png", Path(get_testdata_file("CT_small.dcm")), [np.zeros((128, 128), bool)])
    assert (tmp_path / "out.png").stat().st_size > 0
    assert [str(each.message) for each in recwarn if each.category is UserWarning] == []


def test_over_pixels_that_are_given(tmp_path):
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert write_masks(tmp_path / "out.png", pixels, [np.zeros((4, 5), bool)])
    with Image.open(tmp_path / "out.png") as out:
        np.testing.assert_array_equal(np.asarray(out), np.repeat(pixels[..., None], 3, axis=2))


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no mask"):
        write_masks(tmp_path / "out.png", tmp_path / "in.png", [])
