import asyncio

import numpy as np
import pytest

from serving.domain.image import ImageHandle
from serving.domain.prompt import Box, Labels, ObjectPrompt
from serving.domain.request import Classify, Embed, Segment
from serving.errors import Fault, Kind, SetupError
from serving.families.clip.family import DECLARATION
from serving.families.clip.preprocess import prepare
from serving.families.tokenizer import open_tokenizer
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures, towers

PARTS = ("image_encoder", "text_encoder")
NAMES = ("edema", "nodule", "effusion")


def served(**options):
    opened = {}
    manifest = fixtures.manifest("clip", "contrastive", PARTS, towers.OPTIONS | options)
    family = DECLARATION.open(manifest, fixtures.tools(towers.FUNCTIONS, opened=opened))
    return family, {part: engine for (part, _), engine in opened.items()}


def pictures(count):
    rng = np.random.default_rng(0)
    return tuple(fixtures.raw_image(rng.integers(0, 256, (20 + n, 30)).astype(np.uint8)) for n in range(count))


async def ask(family, task, stages=None, **given):
    return await family.answer(fixtures.request(task, **given), stages or Stages())


def raw_vectors(images):
    pixels = np.stack([prepare(fixtures.decode(image), towers.SIDE) for image in images])
    return pixels.reshape(len(images), -1) @ towers.seeded(3 * towers.SIDE**2, towers.WIDTH, seed=1)


def direct_texts(texts):
    tokens = open_tokenizer(towers.OPTIONS).batch(texts, towers.CONTEXT)
    return towers.unit_rows(towers.token_table(1)[tokens].sum(axis=1))


async def test_scores_equal_a_direct_computation():
    family, _ = served()
    images, templates = pictures(3), ("a photo of {}", "there is {}")
    answer = await ask(family, Classify(images, Labels(NAMES, templates)))
    labels = towers.unit_rows(
        np.stack([direct_texts([t.replace("{}", name) for t in templates]).mean(axis=0) for name in NAMES])
    )
    logits = 50.0 * towers.unit_rows(raw_vectors(images)) @ labels.T
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert answer.result.scoring == "clip-softmax"
    assert answer.result.labels == NAMES
    assert (answer.result.values.shape, answer.result.values.dtype) == ((3, 3), np.float32)
    assert np.abs(answer.result.values - expected).max() <= 1e-4
    assert answer.features == "miss"


async def test_many_images_in_one_call_equal_one_at_a_time():
    family, engines = served()
    lonely, _ = served()
    images, labels = pictures(5), Labels(NAMES)
    together = (await ask(family, Classify(images, labels))).result.values
    assert engines["image_encoder"].calls == 1
    alone = [(await ask(lonely, Classify((image,), labels))).result.values[0] for image in images]
    assert np.abs(together - np.stack(alone)).max() <= 1e-6


async def test_calls_stay_within_the_largest_batch():
    family, engines = served()
    size = engines["image_encoder"].spec.max_batch
    assert size > 1
    sizes, original = [], engines["image_encoder"].function
    engines["image_encoder"].function = lambda inputs: sizes.append(len(inputs["pixels"])) or original(inputs)
    answer = await ask(family, Embed(images=pictures(size * 2 + 1)))
    assert sizes == [size, size, 1]
    assert answer.result.vectors.shape == (size * 2 + 1, towers.WIDTH)


async def test_label_vectors_are_remembered_by_label_and_templates():
    family, engines = served()
    for names, templates, calls in [
        (NAMES, (), 1),
        (NAMES[::-1], (), 1),
        (NAMES[:1], (), 1),
        ((*NAMES, "new"), (), 2),
        (NAMES, ("sign of {}",), 3),
        (NAMES, ("sign of {}",), 3),
    ]:
        await ask(family, Classify(pictures(1), Labels(names, templates)))
        assert engines["text_encoder"].calls == calls


async def test_remembered_labels_score_as_new_ones():
    family, _ = served()
    first = (await ask(family, Classify(pictures(2), Labels(NAMES)))).result.values
    turned = (await ask(family, Classify(pictures(2), Labels(NAMES[::-1])))).result.values
    assert np.abs(first - turned[:, ::-1]).max() <= 1e-6


async def test_a_known_image_is_neither_decoded_nor_encoded_again():
    decoded = []
    tools = fixtures.tools(
        towers.FUNCTIONS, decode=lambda image: decoded.append(image) or fixtures.decode(image), opened=(opened := {})
    )
    family = DECLARATION.open(fixtures.manifest("clip", "contrastive", PARTS, towers.OPTIONS), tools)
    sizes, encoder = [], opened["image_encoder", "1"]
    encoder.function = lambda inputs: sizes.append(len(inputs["pixels"])) or towers.image_encoder(inputs, encoder_record)
    encoder_record = fixtures.manifest("clip", "contrastive", PARTS).engines["image_encoder"][0]
    images, stages = pictures(5), Stages()
    first = await ask(family, Classify(images[:2], Labels(NAMES)))
    more = await ask(family, Classify(images, Labels(NAMES)))
    again = await ask(family, Embed(images=images[::-1]), stages)
    assert (first.features, more.features, again.features) == ("miss", "miss", "hit")
    assert sizes == [2, 3], "only what is missing, in one call"
    assert len(decoded) == 5
    assert not stages.seconds
    assert np.array_equal(first.result.values, more.result.values[:2])


async def test_images_of_one_tenant_are_not_anothers():
    family, engines = served()
    for tenant in ("a", "b", "a"):
        await ask(family, Embed(images=pictures(1)), tenant=tenant)
    assert engines["image_encoder"].calls == 2


async def test_the_same_labels_and_image_at_the_same_time_make_one_call_of_each_tower():
    family, engines = served()
    answers = await asyncio.gather(*(ask(family, Classify(pictures(2), Labels(NAMES))) for _ in range(4)))
    assert {part: engine.calls for part, engine in engines.items()} == {"image_encoder": 1, "text_encoder": 1}
    assert sorted(answer.features for answer in answers) == ["coalesced"] * 3 + ["miss"]
    assert all(np.array_equal(answers[0].result.values, answer.result.values) for answer in answers)


async def test_an_impatient_client_takes_nobody_with_it():
    family, engines = served()
    go, encode = asyncio.Event(), engines["image_encoder"].infer

    async def held(*args, **kwargs):
        await go.wait()
        return await encode(*args, **kwargs)

    engines["image_encoder"].infer = held
    task = Classify(pictures(1), Labels(NAMES))
    owner = asyncio.create_task(ask(family, task, deadline_s=0.05))
    await asyncio.sleep(0)
    other = asyncio.create_task(ask(family, task))
    with pytest.raises(Fault) as raised:
        await owner
    assert raised.value.kind is Kind.DEADLINE
    go.set()
    assert (await other).features in ("coalesced", "miss")
    assert engines["image_encoder"].calls == 1


async def test_text_is_cut_to_the_longest_of_the_call():
    family, engines = served()
    widths, encode = [], engines["text_encoder"].function
    engines["text_encoder"].function = lambda inputs: widths.append(inputs["tokens"].shape) or encode(inputs)
    await ask(family, Embed(texts=("edema", "no sign of edema")))
    assert widths == [(2, 6)]


async def test_the_models_own_templates_stand_in_for_none():
    family, _ = served(templates=["sign of {}"])
    own = (await ask(family, Classify(pictures(1), Labels(NAMES)))).result.values
    said = (await ask(family, Classify(pictures(1), Labels(NAMES, ("sign of {}",))))).result.values
    other = (await ask(family, Classify(pictures(1), Labels(NAMES, ("there is no {}",))))).result.values
    assert np.array_equal(own, said)
    assert np.abs(own - other).max() > 1e-4


async def test_a_label_with_braces_is_only_text():
    family, _ = served()
    answer = await ask(family, Classify(pictures(1), Labels(("{0.__class__}", "{x}"), ("a photo of {} {y}",))))
    assert np.isfinite(answer.result.values).all()


async def test_vectors_are_of_unit_length():
    family, _ = served()
    images, texts = pictures(3), ("edema", "no nodule")
    vectors = (await ask(family, Embed(images=images))).result.vectors
    assert np.abs(vectors - towers.unit_rows(raw_vectors(images))).max() <= 1e-5
    vectors = (await ask(family, Embed(texts=texts))).result.vectors
    assert np.abs(vectors - direct_texts(texts)).max() <= 1e-6
    assert vectors.dtype == np.float32


async def test_stages():
    family, _ = served()
    stages = Stages()
    await ask(family, Classify(pictures(1), Labels(NAMES)), stages)
    assert set(stages.seconds) == {"decode", "preprocess", "queue", "encode", "postprocess"}


@pytest.mark.parametrize(
    ("task", "kind", "param"),
    [
        (Classify((ImageHandle("a.b"),), Labels(NAMES)), Kind.INVALID, "image_id"),
        (Embed(images=(ImageHandle("a.b"),)), Kind.INVALID, "image_id"),
        (Classify(pictures(1), Labels(NAMES, ("{}",), ("no {}",))), Kind.INVALID, "negative_templates"),
        (Classify(pictures(1), Labels(("edema " * 60,))), Kind.INVALID, "text"),
        (Classify(pictures(1), Labels(tuple(map(str, range(101))), ("{}",) * 100)), Kind.TOO_LARGE, "templates"),
        (Segment(pictures(1)[0], (ObjectPrompt(box=Box(0, 0, 1, 1)),)), Kind.INVALID, "model"),
    ],
)
async def test_refused(task, kind, param):
    family, _ = served()
    with pytest.raises(Fault) as raised:
        await ask(family, task)
    assert (raised.value.kind, raised.value.param) == (kind, param)


async def test_a_passed_deadline_costs_no_work():
    family, engines = served()
    with pytest.raises(Fault) as raised:
        await ask(family, Classify(pictures(1), Labels(NAMES)), deadline_s=-1)
    assert raised.value.kind is Kind.DEADLINE
    assert [engine.calls for engine in engines.values()] == [0, 0]


def test_a_record_that_lacks_an_option_is_a_set_up_error():
    options = {name: value for name, value in towers.OPTIONS.items() if name != "logit_scale"}
    manifest = fixtures.manifest("clip", "contrastive", PARTS, options)
    with pytest.raises(SetupError, match="logit_scale"):
        DECLARATION.open(manifest, fixtures.tools(towers.FUNCTIONS))
