import cv2
import numpy as np
import pytest

from serving.domain.image import Frame, Image
from serving.families.litemedsam.preprocess import content_size_px, prepare


def picture(shape, seed=0, low=0, high=256):
    pixels = np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8)
    return Image(pixels, Frame((shape[1], shape[0])))


def published(pixels):
    """The published procedure, step by step, on (H, W, 3) uint8."""
    height, width = pixels.shape[:2]
    scale = 256 * 1.0 / max(height, width)
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    norm = (small - small.min()) / np.clip(small.max() - small.min(), a_min=1e-8, a_max=None)
    padded = np.pad(norm, ((0, 256 - size[1]), (0, 256 - size[0]), (0, 0)))
    return padded.astype(np.float32).transpose(2, 0, 1)[None]


@pytest.mark.parametrize("shape", [(512, 512), (300, 217), (100, 333), (256, 256), (64, 50), (1024, 700), (257, 255)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_published_procedure(shape, channels):
    image = picture(shape if channels == 1 else (*shape, 3), low=20, high=200)
    three = image.pixels if channels == 3 else np.repeat(image.pixels[:, :, None], 3, axis=-1)
    given = prepare(image)
    assert (given.tensor.shape, given.tensor.dtype) == ((1, 3, 256, 256), np.float32)
    assert np.array_equal(given.tensor, published(three))


def test_the_stretch_comes_before_the_padding():
    given = prepare(picture((128, 256), low=100, high=110)).tensor
    assert given[:, :, :128].min() == 0
    assert given[:, :, :128].max() == 1
    assert (given[:, :, 128:] == 0).all()


def test_all_channels_share_one_stretch():
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[..., 1], pixels[0, 0, 2] = 100, 200
    tensor = prepare(Image(pixels, Frame((256, 256)))).tensor
    assert (tensor[0, 1] == 0.5).all()
    assert (tensor[0, 2].max(), tensor[0, 0].max()) == (1, 0)


def test_a_constant_picture_is_black_not_nan():
    assert (prepare(Image(np.full((40, 40), 77, np.uint8), Frame((40, 40)))).tensor == 0).all()


@pytest.mark.parametrize(
    ("size", "expected"), [((512, 384), (256, 192)), ((300, 301), (255, 256)), ((5, 5), (256, 256)), ((1, 4000), (1, 256))]
)
def test_longest_side_with_halves_up(size, expected):
    assert content_size_px(size) == expected


def test_the_content_size_is_width_then_height():
    assert prepare(picture((100, 200))).content_px == (256, 128)
