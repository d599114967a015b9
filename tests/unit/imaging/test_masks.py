import io

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from serving.domain.request import MaskFormat
from serving.imaging import masks


def blob(seed, shape=(61, 83)):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for _ in range(3):
        mask |= np.hypot(y - rng.integers(shape[0]), x - rng.integers(shape[1])) < rng.integers(3, 18)
    mask[20:25, 30:36] = False
    return mask


@pytest.mark.parametrize("format", MaskFormat)
@pytest.mark.parametrize("seed", range(4))
def test_every_form_goes_round_to_the_pixel(format, seed):
    mask = blob(seed)
    encoded = masks.encode(mask, format)
    assert np.array_equal(masks.decode(encoded), mask)
    assert encoded.size_px == (83, 61)
    assert encoded.area_px == mask.sum()
    rows, columns = np.nonzero(mask)
    assert encoded.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("format", MaskFormat)
def test_nothing_and_everything(format):
    for mask in (np.zeros((5, 9), bool), np.ones((5, 9), bool)):
        assert np.array_equal(masks.decode(masks.encode(mask, format)), mask)
    assert masks.encode(np.zeros((5, 9), bool), format).box is None


def test_rle_is_coco_s_and_png_is_a_png():
    mask = blob(9)
    counts = masks.encode(mask, MaskFormat.RLE).data
    assert counts == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    picture = Image.open(io.BytesIO(masks.encode(mask, MaskFormat.PNG).data))
    assert picture.mode == "1"
    assert np.array_equal(np.asarray(picture), mask)


def edges():
    """Masks at and off every border, thin, tall, full of holes, and large enough for numbers of several letters."""
    rng = np.random.default_rng(5)
    for rows, columns in ((1, 1), (1, 9), (9, 1), (7, 11), (64, 300), (300, 64), (700, 900)):
        for _ in range(30):
            top, bottom = sorted(rng.integers(0, rows + 1, 2))
            left, right = sorted(rng.integers(0, columns + 1, 2))
            mask = np.zeros((rows, columns), bool)
            mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < rng.choice([0.02, 0.5, 1.0])
            yield mask


def test_rle_of_the_columns_that_hold_the_mask_is_coco_s_of_the_whole():
    for mask in edges():
        assert masks.encode(mask, MaskFormat.RLE).data == coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"]
