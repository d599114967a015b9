import numpy as np
import pytest

from serving.domain.image import ImageHandle
from serving.domain.prompt import Labels
from serving.domain.request import Classify, Embed
from serving.errors import Fault, Kind, SetupError
from serving.families.chexzero.family import DECLARATION
from serving.families.chexzero.preprocess import prepare
from serving.families.tokenizer import open_tokenizer
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures, towers

PARTS = ("image_encoder", "text_encoder")
NAMES = ("edema", "nodule", "effusion")


def served(versions=("1",), functions=towers.FUNCTIONS, **options):
    opened = {}
    manifest = fixtures.manifest("chexzero", "contrastive", PARTS, towers.OPTIONS | options, versions)
    return DECLARATION.open(manifest, fixtures.tools(functions, opened=opened)), opened


def pictures(count):
    rng = np.random.default_rng(0)
    return tuple(fixtures.raw_image(rng.integers(0, 256, (20 + n, 30)).astype(np.uint8)) for n in range(count))


async def ask(family, task, **given):
    return (await family.answer(fixtures.request(task, **given), Stages())).result


def direct(images, names, version, positive=("{}",), negative=("no {}",)):
    """One checkpoint's probabilities by the published formula, (images, names) float64."""
    pixels = np.stack([prepare(fixtures.decode(image), 20, towers.SIDE) for image in images]).reshape(len(images), -1)
    vectors = towers.unit_rows(pixels @ towers.seeded(pixels.shape[1], towers.WIDTH, seed=version))
    table = towers.token_table(version)

    def cosines(templates):
        means = []
        for name in names:
            tokens = open_tokenizer(towers.OPTIONS).batch([t.replace("{}", name) for t in templates], towers.CONTEXT)
            means.append(towers.unit_rows(table[tokens].sum(axis=1)).mean(axis=0))
        return vectors @ towers.unit_rows(np.stack(means)).T

    for_it, against = np.exp(cosines(positive)), np.exp(cosines(negative))
    return for_it / (for_it + against)


async def test_probabilities_equal_the_published_formula():
    family, _ = served()
    result = await ask(family, Classify(pictures(3), Labels(NAMES)))
    assert (result.scoring, result.labels, result.values.dtype) == ("chexzero-pair", NAMES, np.float32)
    assert np.abs(result.values - direct(pictures(3), NAMES, 1)).max() <= 1e-5
    assert result.values.std() > 1e-3


async def test_the_ensemble_is_the_mean_over_checkpoints():
    versions = ("1", "2", "3")
    family, opened = served(versions)
    result = await ask(family, Classify(pictures(2), Labels(NAMES)))
    each = [direct(pictures(2), NAMES, int(version)) for version in versions]
    assert np.abs(result.values - np.mean(each, axis=0)).max() <= 1e-5
    assert np.abs(each[0] - each[1]).max() > 1e-3
    assert {key: engine.calls for key, engine in opened.items() if key[0] == "image_encoder"} == {
        ("image_encoder", version): 1 for version in versions
    }


async def test_the_requests_templates_override():
    family, _ = served()
    positive, negative = ("sign of {}", "there is {}"), ("no sign of {}", "there is no {}")
    result = await ask(family, Classify(pictures(2), Labels(NAMES, positive, negative)))
    assert np.abs(result.values - direct(pictures(2), NAMES, 1, positive, negative)).max() <= 1e-5
    assert np.abs(result.values - direct(pictures(2), NAMES, 1)).max() > 1e-3


async def test_many_images_in_one_call_equal_one_at_a_time():
    family, opened = served()
    together = (await ask(family, Classify(pictures(4), Labels(NAMES)))).values
    assert opened["image_encoder", "1"].calls == 1
    alone = [(await ask(family, Classify((image,), Labels(NAMES)))).values[0] for image in pictures(4)]
    assert np.abs(together - np.stack(alone)).max() <= 1e-6


async def test_label_and_image_vectors_are_remembered_for_each_checkpoint():
    family, opened = served(("1", "2"))
    for outcome in ("miss", "hit", "hit"):
        answer = await family.answer(fixtures.request(Classify(pictures(1), Labels(NAMES))), Stages())
        assert answer.features == outcome
    assert [engine.calls for engine in opened.values()] == [1] * 4


async def test_vectors_of_the_first_checkpoint_cost_no_other():
    family, opened = served(("1", "2"))
    await ask(family, Embed(images=pictures(2)))
    assert (opened["image_encoder", "1"].calls, opened["image_encoder", "2"].calls) == (1, 0)


async def test_vectors_are_those_of_the_first_checkpoint():
    both, _ = served(("1", "2"))
    first, _ = served(("1",))
    for task in (Embed(images=pictures(2)), Embed(texts=("edema", "no edema"))):
        vectors = (await ask(both, task)).vectors
        assert np.array_equal(vectors, (await ask(first, task)).vectors)
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= 1e-6


async def test_one_failing_checkpoint_fails_the_request_with_its_own_fault():
    def failing(inputs, record):
        if record.version == "2":
            raise Fault(Kind.ENGINE_FAILED, "the engine failed")
        return towers.image_encoder(inputs, record)

    family, _ = served(("1", "2", "3"), towers.FUNCTIONS | {"image_encoder": failing})
    with pytest.raises(Fault) as raised:
        await ask(family, Classify(pictures(1), Labels(NAMES)))
    assert raised.value.kind is Kind.ENGINE_FAILED


@pytest.mark.parametrize(
    ("task", "param"),
    [
        (Classify(pictures(1), Labels(NAMES, ("sign of {}",))), "negative_templates"),
        (Classify((ImageHandle("a.b"),), Labels(NAMES)), "image_id"),
    ],
)
async def test_refused(task, param):
    family, opened = served()
    with pytest.raises(Fault) as raised:
        await ask(family, task)
    assert (raised.value.kind, raised.value.param) == (Kind.INVALID, param)
    assert all(engine.calls == 0 for engine in opened.values())


def test_encoders_that_do_not_pair_are_a_set_up_error():
    manifest = fixtures.manifest("chexzero", "contrastive", ("image_encoder",), towers.OPTIONS)
    with pytest.raises(SetupError, match="text"):
        DECLARATION.open(manifest, fixtures.tools(towers.FUNCTIONS))
