import numpy as np
import pytest
from PIL import Image as Pillow
from scipy import ndimage

from serving.domain.image import Frame, Image
from serving.families.medsam import preprocess
from serving.families.medsam.preprocess import longest_side, longest_side_scale, squash, squash_scale


def picture(shape, seed=0, low=20, high=200):
    coarse = np.random.default_rng(seed).integers(low, high, (9, 9, *shape[2:])).astype(np.float64)
    factors = (shape[0] / 9, shape[1] / 9, *[1] * (len(shape) - 2))
    pixels = np.clip(ndimage.zoom(coarse, factors, order=1), 0, 255).astype(np.uint8)
    pixels += np.random.default_rng(seed).integers(0, 30, pixels.shape).astype(np.uint8)
    return Image(pixels, Frame((shape[1], shape[0])))


def three(pixels):
    return np.repeat(pixels[:, :, None], 3, axis=-1) if pixels.ndim == 2 else pixels


def published_july(pixels):
    """The published script on (H, W, 3) uint8, with skimage.transform.resize spelled out (order 3, anti_aliasing)."""
    image = pixels.astype(np.float64)
    factors = np.array(image.shape) / (1024, 1024, 3)
    smooth = ndimage.gaussian_filter(image, np.maximum(0, (factors - 1) / 2), cval=0, mode="mirror")
    zoomed = ndimage.zoom(smooth, 1 / factors, order=3, mode="mirror", cval=0, grid_mode=True)
    resized = np.clip(zoomed, image.min(), image.max()).astype(np.uint8)
    norm = (resized - resized.min()) / np.clip(resized.max() - resized.min(), a_min=1e-8, a_max=None)
    return norm.astype(np.float32).transpose(2, 0, 1)[None]


def published_sam(pixels):
    """`ResizeLongestSide(1024).apply_image`, then `Sam.preprocess`, on (H, W, 3) uint8."""
    height, width = pixels.shape[:2]
    scale = 1024 * 1.0 / max(height, width)
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    resized = np.array(Pillow.fromarray(pixels).resize(size, Pillow.BILINEAR)).astype(np.float32)
    norm = (resized - np.float32([123.675, 116.28, 103.53])) / np.float32([58.395, 57.12, 57.375])
    return np.pad(norm, ((0, 1024 - size[1]), (0, 1024 - size[0]), (0, 0))).transpose(2, 0, 1)[None]


@pytest.mark.parametrize("shape", [(300, 217), (1300, 500), (256, 256, 3), (90, 1100, 3)])
def test_july_is_the_published_script(shape):
    image = picture(shape)
    given = squash(image)
    assert (given.tensor.shape, given.tensor.dtype) == ((1, 3, 1024, 1024), np.float32)
    assert given.content_px == (1024, 1024)
    wanted = published_july(three(image.pixels))
    # Sums in another order may fall on the other side of a whole level, which upstream truncates to.
    assert np.abs(given.tensor - wanted).max() <= 1.01 / (int(image.pixels.max()) - int(image.pixels.min()))
    assert (given.tensor != wanted).mean() <= 1e-3
    assert (given.tensor.min(), given.tensor.max()) == (0, 1)


@pytest.mark.parametrize("shape", [(300, 217), (1300, 500), (256, 256, 3), (90, 1100, 3), (1024, 1024)])
def test_sam_and_april_are_the_published_steps(shape):
    image = picture(shape)
    given = longest_side(image)
    wanted = published_sam(three(image.pixels))
    assert given.tensor.dtype == np.float32
    assert np.abs(given.tensor - wanted).max() <= 1e-6
    width, height = given.content_px
    assert max(width, height) == 1024
    assert (given.tensor[..., height:, :] == 0).all()
    assert (given.tensor[..., :, width:] == 0).all()


def test_the_generations_differ():
    image = picture((200, 300))
    assert np.abs(squash(image).tensor - longest_side(image).tensor).max() > 1


def test_a_constant_picture_is_black_not_nan():
    assert (squash(Image(np.full((40, 50), 77, np.uint8), Frame((50, 40)))).tensor == 0).all()


def test_one_pixel_wide_pictures_are_taken():
    thin = Image(np.arange(200, dtype=np.uint8).reshape(200, 1), Frame((1, 200)))
    assert np.isfinite(squash(thin).tensor).all()
    assert longest_side(thin).content_px == (5, 1024)
    assert longest_side(Image(np.zeros((3000, 1), np.uint8), Frame((1, 3000)))).content_px == (1, 1024)


def test_scales():
    july, sam = squash_scale((400, 100)), longest_side_scale((300, 217))
    assert (july.x, july.y, july.whole_corners) == (2.56, 10.24, False)
    assert (sam.x, sam.y) == (1024 / 300, 741 / 217)


def test_samples_are_fed_as_pictures_are():
    flat = np.full((1, 3, 1024, 1024), 100 / 255, np.float32)
    pixels = np.full((1024, 1024), 100, np.uint8)
    assert np.abs(preprocess.normalised(flat, "sam") - longest_side(Image(pixels, Frame((1024, 1024)))).tensor).max() <= 1e-5
    assert preprocess.normalised(flat, "july-2023") is flat
