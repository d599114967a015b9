import numpy as np
import PIL.Image
import pytest

from serving.domain.image import Frame, Image
from serving.errors import Fault, Kind
from serving.families.clip.preprocess import MEAN, STD, prepare


def picture(rows, columns, channels=3):
    shape = (rows, columns, 3) if channels == 3 else (rows, columns)
    pixels = np.random.default_rng(rows * columns).integers(0, 256, shape).astype(np.uint8)
    return Image(pixels, Frame((columns, rows)))


def cubic_weights(given, wanted):
    """PIL's antialiased bicubic (a = -0.5) along one axis, from its definition, (wanted, given) float64."""
    scale = max(given / wanted, 1.0)
    centres = (np.arange(wanted) + 0.5) * given / wanted
    d = np.abs((np.arange(given) + 0.5 - centres[:, None]) / scale)
    w = np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))
    return w / w.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("rows", "columns"), [(300, 400), (227, 224), (100, 90), (640, 333), (448, 448)])
def test_equals_an_independent_computation(rows, columns):
    image, side = picture(rows, columns), 224
    height, width = (int(side * rows / columns), side) if columns <= rows else (side, int(side * columns / rows))
    across = np.einsum("xc,rcn->rxn", cubic_weights(columns, width), image.pixels.astype(float))
    across = np.clip(np.rint(across), 0, 255)
    resized = np.clip(np.rint(np.einsum("yr,rxn->yxn", cubic_weights(rows, height), across)), 0, 255)
    top, left = round((height - side) / 2), round((width - side) / 2)
    expected = ((resized[top : top + side, left : left + side] / 255 - MEAN) / STD).transpose(2, 0, 1)
    given = prepare(image, side)
    assert (given.shape, given.dtype) == ((3, side, side), np.float32)
    assert (np.abs(given - expected) * STD[:, None, None]).max() <= 1 / 255 + 1e-5


@pytest.mark.parametrize(("rows", "columns"), [(300, 400), (500, 300), (228, 224), (100, 90), (224, 224)])
def test_equals_hugging_face(rows, columns):
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = clip.CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    image = picture(rows, columns)
    expected = processor(PIL.Image.fromarray(image.pixels), return_tensors="np")["pixel_values"][0]
    assert (np.abs(prepare(image, 224) - expected) * STD[:, None, None]).max() <= 1 / 255 + 1e-5


def test_the_crop_rounds_halves_to_even_as_torchvision():
    pixels = np.zeros((11, 8), np.uint8)
    pixels[2] = 255
    scaled = prepare(Image(pixels, Frame((8, 11))), 8)[0] * STD[0] + MEAN[0]
    assert scaled.argmax(axis=0).tolist() == [0] * 8


def test_gray_is_the_same_in_three_channels():
    gray = picture(300, 200, channels=1)
    colour = Image(np.repeat(gray.pixels[:, :, None], 3, axis=-1), gray.frame)
    assert np.array_equal(prepare(gray, 64), prepare(colour, 64))


def test_a_sliver_is_refused_before_it_grows():
    with pytest.raises(Fault) as raised:
        prepare(picture(1, 65, channels=1), 224)
    assert (raised.value.kind, raised.value.param) == (Kind.INVALID, "image")
    assert prepare(picture(1, 64, channels=1), 16).shape == (3, 16, 16)
