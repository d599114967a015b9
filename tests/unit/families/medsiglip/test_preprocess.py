import numpy as np
import pytest
import torch
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from serving.domain.image import Frame, Image
from serving.errors import Fault
from serving.families.medsiglip.preprocess import CONTAINER, EVALUATION, PROCESSOR, prepare

SIDE = 112
SHAPES = [(300, 401), (231, 90), (64, 75, 3), (112, 112)]


def picture(shape):
    pixels = np.random.default_rng(shape[0] * shape[1]).integers(0, 256, shape).astype(np.uint8)
    return Image(pixels, Frame((shape[1], shape[0])))


def processed(pixels):
    """transformers' processor, the library that upstream's container and examples call."""
    colour = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return processor(colour, input_data_format="channels_last", return_tensors="np")["pixel_values"][0]


def squared(pixels):
    missing = max(pixels.shape[:2]) - np.array(pixels.shape[:2])
    pads = [(int(m) // 2, int(m) - int(m) // 2) for m in missing] + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, pads)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_container_and_the_processor(shape):
    image = picture(shape)
    for way, expected in ((CONTAINER, processed(squared(image.pixels))), (PROCESSOR, processed(image.pixels))):
        given = prepare(image, SIDE, way)
        assert (given.shape, given.dtype) == ((3, SIDE, SIDE), np.float32)
        assert np.abs(given - expected).max() <= 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_the_evaluation_is_bilinear_without_antialias_cut_to_levels(shape):
    image = picture(shape)
    planes = image.pixels[None] if len(shape) == 2 else image.pixels.transpose(2, 0, 1)
    values = torch.from_numpy(planes.astype(np.float64))[None]
    wanted = torch.nn.functional.interpolate(values, (SIDE, SIDE), mode="bilinear", antialias=False)[0].numpy()
    given = (prepare(image, SIDE, EVALUATION) / 2 + 0.5) * 255
    levels = np.rint(given)
    assert np.abs(given - levels).max() <= 1e-3
    assert np.abs(levels - np.floor(wanted + 1e-4)).max() <= 1
    assert (levels != np.floor(wanted + 1e-4)).mean() <= 1e-2, "whole numbers may fall to either side"


def test_the_three_ways_differ():
    image = picture((300, 401))
    made = [prepare(image, SIDE, way) for way in (CONTAINER, PROCESSOR, EVALUATION)]
    assert min(np.abs(made[a] - made[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.1


def test_a_sliver_is_refused_where_it_would_be_padded():
    with pytest.raises(Fault, match="elongated"):
        prepare(picture((2, 10_000)), SIDE, CONTAINER)
    assert prepare(picture((2, 10_000)), SIDE, EVALUATION).shape == (3, SIDE, SIDE)
