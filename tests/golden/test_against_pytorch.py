"""What the running server answers, against the PyTorch modules and the published formulas on the same pixels."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from brain1 import IMAGE, WINDOW, cases
from pictures import png
from pydicom.data import get_testdata_file
from scipy.special import softmax

from serving.build import weights
from serving.build.build import DEMONSTRATION
from serving.build.catalogue import find
from serving.build.nets import litemedsam
from serving.client import Client
from serving.demonstration import model as demonstration
from serving.demonstration.draw import draw
from serving.demonstration.labels import LABELS
from serving.demonstration.prepare import PROCEDURES, prepared
from serving.domain.image import EncodedImage, PercentileWindow, View
from serving.families.litemedsam.postprocess import binary_mask
from serving.families.litemedsam.preprocess import prepare
from serving.families.sam_engines import FOLDED_TOKENS
from serving.imaging.decode import decode
from serving.settings import LimitSettings, load

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def lite():
    """LiteMedSAM as PyTorch, from the pulled checkpoint."""
    checkpoint = weights.pull(find("litemedsam"), load().home, print)
    return litemedsam.load(weights.read(checkpoint.path))


@cache
@torch.inference_mode()
def pytorch_features(lite, encoded):
    """(Features, content_px, size_px): PyTorch takes seconds an image, and several tests ask for the same ones."""
    image = decode(encoded, LimitSettings())
    given = prepare(image)
    return lite.image_encoder(torch.from_numpy(given.tensor)), given.content_px, image.frame.size_px


@torch.inference_mode()
def pytorch_mask(lite, encoded, box, clicks=()):
    """The stock modules on the same preprocessing: logits -> mask (rows, columns) bool. `clicks`: x, y, label each."""
    features, content_px, (width, height) = pytorch_features(lite, encoded)
    places = np.array([*(click[:2] for click in clicks), box[:2], box[2:]]) * (256 / max(width, height))
    places[-2:] = np.trunc(places[-2:])  # as upstream's resize_box_to_256
    labels = torch.tensor([[*(click[2] for click in clicks), litemedsam.TOP, litemedsam.BOTTOM]])
    sparse = lite.prompt_encoder(torch.from_numpy(places[None]).float(), labels)
    logits = litemedsam.Decode(lite)(features, sparse)[0][0, 0].numpy()
    return binary_mask(logits, content_px, (width, height))


def pictures():
    """Real images: brain1's slices and pydicom's MR, each with a box."""
    window = PercentileWindow(WINDOW["low"], WINDOW["high"], WINDOW["nonzero"])
    for index, _, box in cases():
        said = {"index": index, "window": WINDOW}
        yield EncodedImage(IMAGE.read_bytes(), "", view=View(index=index, window=window)), box, IMAGE.read_bytes(), said
    data = Path(get_testdata_file("examples_overlay.dcm")).read_bytes()
    for box in ((48, 78, 184, 198), (117, 187, 188, 252), (286, 194, 352, 255)):
        yield EncodedImage(data, ""), box, data, {}


def test_masks_flip_at_most_one_pixel_in_ten_thousand(server, lite):
    flipped = pixels = 0
    with Client(server.http_url) as client:
        for encoded, box, data, said in pictures():
            served = client.segment(data, boxes=[box], model="litemedsam", **said).masks[0].array
            expected = pytorch_mask(lite, encoded, box)
            assert expected.sum() > 50
            flipped += (served != expected).sum()
            pixels += served.size
    assert flipped / pixels <= 1e-4


@pytest.mark.parametrize("tokens", [FOLDED_TOKENS, FOLDED_TOKENS + 1], ids=["folded", "not folded"])
def test_a_crowd_of_clicks_gets_the_mask_that_pytorch_gives(server, lite, tokens):
    encoded, (x0, y0, x1, y1), data, said = list(pictures())[-1]
    draw_from = np.random.default_rng(0)
    places = draw_from.uniform((x0, y0), (x1, y1), (tokens - 2, 2)).tolist()
    clicks = [[x, y, n % 2] for n, (x, y) in enumerate(places)]
    with Client(server.http_url) as client:
        served = client.segment(data, boxes=[(x0, y0, x1, y1)], points=clicks, model="litemedsam", **said).masks[0].array
    expected = pytorch_mask(lite, encoded, (x0, y0, x1, y1), clicks)
    assert expected.sum() > 50
    assert (served != expected).mean() <= 1e-4


@pytest.fixture(scope="module")
def towers():
    return demonstration.open_pair(DEMONSTRATION / "weights.safetensors")


@torch.inference_mode()
def unit(vectors):
    return (vectors / vectors.norm(dim=-1, keepdim=True)).double().numpy()


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_scores_are_those_of_the_published_formulas(server, towers, procedure):
    clip, tokenizer = towers
    drawings = [draw(70_000_000 + n).pixels for n in range(4)]

    @torch.inference_mode()
    def texts(sentences):
        return unit(clip.text_encoder(torch.from_numpy(tokenizer.batch(sentences, 64))))

    with torch.inference_mode():
        images = unit(clip.image_encoder(prepared(drawings, clip.config.image_size, procedure)))
    if procedure == "clip":  # openai/CLIP's README: softmax over labels at the trained scale
        expected = softmax(np.exp(demonstration.read_scale()) * images @ texts([*LABELS]).T, axis=-1)
    else:  # rajpurkarlab/CheXzero zero_shot.py: exp(positive) / (exp(positive) + exp(negative)), no temperature
        positive, negative = np.exp(images @ texts([*LABELS]).T), np.exp(images @ texts([f"no {x}" for x in LABELS]).T)
        expected = positive / (positive + negative)
    with Client(server.http_url) as client:
        found = client.classify([png(pixels) for pixels in drawings], LABELS, model=f"synthetic-cxr-{procedure}")
    assert np.abs(found.scores - expected).max() <= 1e-4
