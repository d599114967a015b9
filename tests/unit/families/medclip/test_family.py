import asyncio

import numpy as np
import pytest

from serving.domain.image import ImageHandle
from serving.domain.prompt import Labels
from serving.domain.request import Classify, Embed
from serving.errors import Fault, Kind, SetupError
from serving.families.medclip.family import DECLARATION
from serving.families.medclip.preprocess import prepare
from serving.families.medclip.sentences import drawn
from serving.families.tokenizer import open_tokenizer
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures, towers

PARTS = ("image_encoder", "text_encoder")
NAMES = ("Edema", "nodule", "cardiomegaly")


def text_encoder(inputs, record):
    """Counts padding in, as MedCLIP's does: the mean over all positions."""
    table = towers.token_table(int(record.version))
    table[0] = towers.seeded(towers.WIDTH, seed=99)
    return {"embedding": table[inputs["tokens"]].mean(axis=1)}


def served(**options):
    opened = {}
    functions = towers.FUNCTIONS | {"text_encoder": text_encoder}
    manifest = fixtures.manifest("medclip", "contrastive", PARTS, towers.OPTIONS | options)
    family = DECLARATION.open(manifest, fixtures.tools(functions, opened=opened))
    return family, {part: engine for (part, _), engine in opened.items()}


def pictures(count):
    rng = np.random.default_rng(0)
    return tuple(fixtures.raw_image(rng.integers(0, 256, (20 + n, 30)).astype(np.uint8)) for n in range(count))


async def ask(family, task, **given):
    return await family.answer(fixtures.request(task, **given), Stages())


def cosines(images, texts, way="processor"):
    """(images, texts): the texts padded to the longest of them."""
    pixels = np.stack([prepare(fixtures.decode(image), towers.SIDE, way) for image in images]).reshape(len(images), -1)
    vectors = towers.unit_rows(pixels @ towers.seeded(pixels.shape[1], towers.WIDTH, seed=1))
    rows = [open_tokenizer(towers.OPTIONS).encode(text) for text in texts]
    longest = max(map(len, rows))
    tokens = np.array([row + [0] * (longest - len(row)) for row in rows])

    class Record:
        version = 1

    return vectors @ towers.unit_rows(text_encoder({"tokens": tokens}, Record)["embedding"]).T


@pytest.mark.parametrize(("ensemble", "reduce"), [("mean", np.mean), ("max", np.max)])
async def test_a_finding_is_scored_over_its_published_sentences(ensemble, reduce):
    family, _ = served(ensemble=ensemble)
    answer = await ask(family, Classify(pictures(2), Labels(NAMES)))
    published = drawn(10, 42)
    sets = (published["Edema"], ("nodule",), published["Cardiomegaly"])
    wanted = np.stack([reduce(50.0 * cosines(pictures(2), texts), axis=1) for texts in sets], axis=1)
    assert answer.result.scoring == f"medclip-logits-{ensemble}"
    assert answer.result.labels == NAMES
    assert np.abs(answer.result.values - wanted).max() <= 1e-3


async def test_templates_of_the_request_stand_in_for_the_published_sentences():
    family, _ = served()
    templates = ("{}", "there is no sign of {}")
    answer = await ask(family, Classify(pictures(1), Labels(("edema",), templates)))
    wanted = 50.0 * cosines(pictures(1), ("edema", "there is no sign of edema")).mean(axis=1)
    assert np.abs(answer.result.values[:, 0] - wanted).max() <= 1e-3
    apart = 50.0 * np.mean([cosines(pictures(1), (text,)) for text in ("edema", "there is no sign of edema")])
    assert np.abs(apart - wanted).max() > 1e-2, "sentences of one class are padded alike"


async def test_a_class_keeps_its_vectors_whatever_stands_beside_it():
    family, engines = served()
    alone = (await ask(family, Classify(pictures(1), Labels(("edema",), ("{}",))))).result.values
    beside = (await ask(family, Classify(pictures(1), Labels(("edema", "no sign of a nodule"), ("{}",))))).result.values
    assert alone[0, 0] == beside[0, 0]
    assert engines["text_encoder"].calls == 2, "one a class, each once"


async def test_the_same_class_at_the_same_time_makes_one_call():
    family, engines = served()
    await asyncio.gather(*(ask(family, Classify(pictures(1), Labels(("edema",)))) for _ in range(4)))
    assert engines["text_encoder"].calls == 1


async def test_the_way_of_preprocessing_changes_the_vectors():
    image = (fixtures.raw_image(np.random.default_rng(1).integers(0, 256, (300, 500)).astype(np.uint8)),)
    vectors = [
        (await ask(served(preprocessing=way)[0], Embed(images=image))).result.vectors for way in ("processor", "evaluation")
    ]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("task", "kind", "param"),
    [
        (Classify((ImageHandle("a.b"),), Labels(NAMES)), Kind.INVALID, "image_id"),
        (Classify(pictures(1), Labels(NAMES, ("{}",), ("no {}",))), Kind.INVALID, "negative_templates"),
        (Classify(pictures(1), Labels(tuple(map(str, range(101))), ("{}",) * 100)), Kind.TOO_LARGE, "templates"),
    ],
)
async def test_refused(task, kind, param):
    family, _ = served()
    with pytest.raises(Fault) as raised:
        await ask(family, task)
    assert (raised.value.kind, raised.value.param) == (kind, param)


def test_a_record_that_lacks_an_option_is_a_set_up_error():
    options = {name: value for name, value in towers.OPTIONS.items() if name != "ensemble"}
    with pytest.raises(SetupError, match="ensemble"):
        DECLARATION.open(fixtures.manifest("medclip", "contrastive", PARTS, options), fixtures.tools(towers.FUNCTIONS))
