import numpy as np
import PIL.Image
import pytest

from serving.domain.image import Frame, Image
from serving.families.chexzero.preprocess import bicubic_weights, letterbox, prepare

torch = pytest.importorskip("torch")


def picture(rows, columns, channels=1):
    shape = (rows, columns, 3) if channels == 3 else (rows, columns)
    return Image(np.random.default_rng(rows).integers(0, 256, shape).astype(np.uint8), Frame((columns, rows)))


def published(pixels, side):
    """The published letterbox on RGB, then normalise, then resize without antialias; (3, side, side) float32."""
    rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=-1)
    picture = PIL.Image.fromarray(rgb)
    ratio = float(320) / max(picture.size)
    size = tuple(int(length * ratio) for length in picture.size)
    canvas = PIL.Image.new("L", (320, 320))
    canvas.paste(picture.resize(size, PIL.Image.Resampling.LANCZOS), ((320 - size[0]) // 2, (320 - size[1]) // 2))
    tensor = torch.tensor(np.asarray(canvas, np.float32)).repeat(3, 1, 1)
    tensor = (tensor - 101.48761) / 83.43944
    resize = torch.nn.functional.interpolate
    return resize(tensor[None], (side, side), mode="bicubic", align_corners=False, antialias=False)[0].numpy()


@pytest.mark.parametrize(("rows", "columns"), [(400, 300), (1000, 1201), (320, 320), (64, 50), (333, 999)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_published_procedure(rows, columns, channels):
    image = picture(rows, columns, channels)
    given = prepare(image, 320, 224)
    assert (given.shape, given.dtype) == ((3, 224, 224), np.float32)
    assert np.abs(given - published(image.pixels, 224)).max() <= 1e-4


@pytest.mark.parametrize(("given", "wanted"), [(320, 224), (320, 400), (320, 97), (320, 64)])
def test_bicubic_equals_torch_without_antialias(given, wanted):
    noise = np.random.default_rng(1).normal(size=(given, given)).astype(np.float32)
    weights = bicubic_weights(given, wanted)
    resize = torch.nn.functional.interpolate
    expected = resize(torch.tensor(noise)[None, None], (wanted, wanted), mode="bicubic", align_corners=False, antialias=False)
    assert np.abs(weights @ noise @ weights.T - expected[0, 0].numpy()).max() <= 1e-4


def test_the_order_matters_and_is_normalise_then_resize_without_antialias():
    image = picture(700, 700)
    tensor = torch.tensor((letterbox(image, 320).astype(np.float32) - 101.48761) / 83.43944)[None, None]
    smoothed = torch.nn.functional.interpolate(tensor, (224, 224), mode="bicubic", align_corners=False, antialias=True)
    assert np.abs(prepare(image, 320, 224)[0] - smoothed[0, 0].numpy()).max() > 0.1


def test_without_a_resize_only_the_normalisation_is_left():
    image = picture(320, 320)
    expected = (image.pixels.astype(np.float32) - np.float32(101.48761)) / np.float32(83.43944)
    assert np.array_equal(prepare(image, 320, 320), np.repeat(expected[None], 3, axis=0))


def test_the_letterbox_is_centred_on_black():
    boxed = letterbox(Image(np.full((100, 200), 255, np.uint8), Frame((200, 100))), 320)
    assert (boxed[80:240] == 255).all()
    assert (boxed[:80] == 0).all()
    assert (boxed[240:] == 0).all()


def test_a_sliver_keeps_one_pixel():
    assert (letterbox(Image(np.full((1, 1000), 255, np.uint8), Frame((1000, 1))), 320) == 255).any()
