import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from serving.client import decode

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40), elements=st.booleans())
RANDOM = np.random.default_rng(0).random((90, 70)) > 0.4


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_rle_is_coco_s(mask):
    counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    np.testing.assert_array_equal(decode.rle(counts, *mask.shape), mask)


@pytest.mark.parametrize("mask", [np.eye(7, 5) > 0, np.zeros((4, 3), bool), np.ones((4, 3), bool), RANDOM])
def test_a_mask_that_is_sent_comes_back(mask):
    assert np.array_equal(decode.rle(decode.rle_of(mask), *mask.shape), mask)


def test_long_runs():
    mask = np.zeros((1024, 1024), bool)
    mask[100:900, 3:1000] = True
    counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    np.testing.assert_array_equal(decode.rle(counts, 1024, 1024), mask)


def test_rle_of_another_size():
    with pytest.raises(ValueError, match="not 5 x 5"):
        decode.rle(b"04", 5, 5)


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_packed(mask):
    np.testing.assert_array_equal(decode.packed(zlib.compress(np.packbits(mask, axis=1).tobytes()), *mask.shape), mask)


def test_png():
    from io import BytesIO

    from PIL import Image

    mask = np.random.default_rng(0).integers(0, 2, (9, 13)).astype(bool)
    out = BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    np.testing.assert_array_equal(decode.png(out.getvalue()), mask)
