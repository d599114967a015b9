import numpy as np
import PIL.Image
import pytest
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from serving.domain.image import Frame, Image
from serving.errors import Fault, Kind
from serving.families.medclip.preprocess import EVALUATION, MEAN, PROCESSOR, STD, prepare


def picture(rows, columns, channels=1):
    shape = (rows, columns) if channels == 1 else (rows, columns, channels)
    pixels = np.random.default_rng(rows * columns).integers(0, 256, shape).astype(np.uint8)
    return Image(pixels, Frame((columns, rows)))


def padded(image):
    """Upstream's square in numpy."""
    gray = np.asarray(PIL.Image.fromarray(image.pixels).convert("L"))
    side = max(224, *gray.shape)
    canvas = np.zeros((side, side), np.uint8)
    top, left = int((side - gray.shape[0]) / 2), int((side - gray.shape[1]) / 2)
    canvas[top : top + gray.shape[0], left : left + gray.shape[1]] = gray
    return PIL.Image.fromarray(canvas)


@pytest.mark.parametrize(("rows", "columns", "channels"), [(300, 401, 1), (500, 223, 3), (90, 101, 1), (224, 224, 1)])
def test_both_published_ways(rows, columns, channels):
    image = picture(rows, columns, channels)
    square = padded(image)
    processor = CLIPImageProcessorPil(
        size={"height": 224, "width": 224}, do_center_crop=False, image_mean=[float(MEAN)] * 3, image_std=[float(STD)] * 3
    )
    wanted = {PROCESSOR: processor(square.convert("RGB"), return_tensors="np")["pixel_values"][0]}
    bilinear = np.asarray(square.resize((224, 224), PIL.Image.Resampling.BILINEAR), np.float64) / 255
    wanted[EVALUATION] = np.stack([(bilinear - float(MEAN)) / float(STD)] * 3)
    for way, expected in wanted.items():
        given = prepare(image, 224, way)
        assert (given.shape, given.dtype) == ((3, 224, 224), np.float32)
        assert np.abs(given - expected).max() * STD <= 1e-5
    different = np.abs(prepare(image, 224, PROCESSOR) - prepare(image, 224, EVALUATION)).max() * STD
    assert (different > 1 / 255) == (max(rows, columns, 224) != 224)


def test_a_sliver_is_refused_before_its_square_is_made():
    with pytest.raises(Fault) as raised:
        prepare(picture(2, 10_000), 224, PROCESSOR)
    assert (raised.value.kind, raised.value.param) == (Kind.INVALID, "image")
    assert prepare(picture(1, 300), 224, PROCESSOR).shape == (3, 224, 224)
