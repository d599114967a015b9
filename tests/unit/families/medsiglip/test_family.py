import numpy as np
import pytest

from serving.domain.prompt import Labels
from serving.domain.request import Classify
from serving.errors import SetupError
from serving.families.medsiglip.family import DECLARATION
from serving.families.medsiglip.postprocess import scores
from serving.families.medsiglip.preprocess import prepare
from serving.families.tokenizer import open_tokenizer
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures, towers

PARTS = ("image_encoder", "text_encoder")
NAMES = ("edema", "a nodule")


async def test_scores_are_sigmoids_and_text_fills_the_context():
    widths = []

    def text_encoder(inputs, record):
        widths.append(inputs["tokens"].shape[1])
        return towers.text_encoder(inputs, record)

    tools = fixtures.tools(towers.FUNCTIONS | {"text_encoder": text_encoder})
    family = DECLARATION.open(fixtures.manifest("medsiglip", "contrastive", PARTS, towers.OPTIONS), tools)
    image = fixtures.raw_image(np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8))
    answer = await family.answer(fixtures.request(Classify((image,), Labels(NAMES))), Stages())
    pixels = prepare(fixtures.decode(image), towers.SIDE, "container").reshape(1, -1)
    vector = towers.unit_rows(pixels @ towers.seeded(pixels.shape[1], towers.WIDTH, seed=1))
    tokens = open_tokenizer(towers.OPTIONS).batch(NAMES, towers.CONTEXT)
    labels = towers.unit_rows(towers.token_table(1)[tokens].sum(axis=1))
    wanted = 1 / (1 + np.exp(-(50.0 * vector @ labels.T - 20.0)))
    assert answer.result.scoring == "siglip-sigmoid"
    assert np.abs(answer.result.values - wanted).max() <= 1e-4
    assert widths == [towers.CONTEXT]


def test_far_from_zero_nothing_overflows():
    one = np.array([[1, 0]], np.float32)
    found = scores(one, np.array([[1, 0], [-1, 0]], np.float32), 100.0, -10.0)
    assert found.tolist() == [[pytest.approx(1), pytest.approx(0)]]


def test_a_record_without_bias_is_a_set_up_error():
    options = {name: value for name, value in towers.OPTIONS.items() if name != "logit_bias"}
    with pytest.raises(SetupError, match="logit_bias"):
        DECLARATION.open(fixtures.manifest("medsiglip", "contrastive", PARTS, options), fixtures.tools(towers.FUNCTIONS))
