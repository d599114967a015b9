import asyncio

import numpy as np
import pytest

from serving.domain.image import ImageHandle
from serving.domain.prompt import Box, Labels, MaskLogits, ObjectPrompt, Point
from serving.domain.request import Classify, Encode, Lookup, MaskFormat, Segment
from serving.embeddings.store import FeaturesStore
from serving.errors import Fault, Kind, SetupError
from serving.families.litemedsam.family import DECLARATION
from serving.families.litemedsam.postprocess import binary_mask
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures

PARTS = ("image_encoder", "prompt_encoder", "mask_decoder", "mask_refiner")
MANIFEST = fixtures.manifest("litemedsam", "adaptive", PARTS)
ROWS, COLUMNS = np.mgrid[:256, :256].astype(np.float32)


def image_encoder(inputs, record):
    means = inputs["image"].mean(axis=(1, 2, 3))
    return {"features": np.ones((1, 256, 64, 64), np.float32) * means[:, None, None, None]}


def prompt_encoder(inputs, record):
    sparse = np.zeros((*inputs["labels"].shape, 256), np.float32)
    sparse[..., :2], sparse[..., 2] = inputs["points"], inputs["labels"]
    return {"sparse": sparse}


def blob(token_rows, shift):
    """Logits of a disc around the mean of one object's real tokens: depends on that object alone."""
    real = token_rows[token_rows[:, 2] >= 0]
    x, y = real[:, 0].mean(), real[:, 1].mean()
    return 20 + shift + len(real) - np.hypot(COLUMNS - x, ROWS - y)


def mask_decoder(inputs, record):
    shift = float(inputs["features"].mean()) + (inputs["logits"].mean(axis=(1, 2, 3)) if "logits" in inputs else 0)
    shift = np.broadcast_to(shift, len(inputs["sparse"]))
    masks = np.stack(
        [[blob(rows, extra + n) for n in range(4)] for rows, extra in zip(inputs["sparse"], shift, strict=True)]
    ).astype(np.float32)
    ious = masks.mean(axis=(2, 3)).astype(np.float32)
    return {"mask": masks[:, :1], "iou": ious[:, :1], "masks": masks[:, 1:], "ious": ious[:, 1:]}


FUNCTIONS = {"image_encoder": image_encoder, "prompt_encoder": prompt_encoder, "mask_decoder": mask_decoder}
FUNCTIONS["mask_refiner"] = mask_decoder


def served(**given):
    opened = {}
    family = DECLARATION.open(MANIFEST, fixtures.tools(FUNCTIONS, opened=opened, **given))
    return family, {part: engine for (part, _), engine in opened.items()}


def picture(seed=0, shape=(90, 120)):
    return fixtures.raw_image(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8))


async def ask(family, task, stages=None, **given):
    return await family.answer(fixtures.request(task, **given), stages or Stages())


EARLIER = MaskLogits(np.full((256, 256), 3, np.float32))
OBJECTS = (
    ObjectPrompt(box=Box(10, 20, 60, 70)),
    ObjectPrompt(points=(Point(100, 30),)),
    ObjectPrompt(points=(Point(50, 50), Point(60, 60, positive=False))),
    ObjectPrompt(box=Box(5, 5, 50, 60), logits=EARLIER),
    ObjectPrompt(box=Box(40, 10, 110, 60), points=(Point(70, 40),)),
    ObjectPrompt(box=Box(1, 1, 20, 20)),
)


def plain(mask):
    return (mask.mask, mask.score, None if mask.logits is None else mask.logits.tobytes())


@pytest.mark.parametrize("multimask", [False, True])
async def test_many_objects_in_one_call_equal_one_at_a_time(multimask):
    family, _ = served()
    many = await ask(family, Segment(picture(), OBJECTS, multimask, return_logits=True))
    each = 3 if multimask else 1
    assert [mask.object for mask in many.result.masks] == [n for n in range(6) for _ in range(each)]
    for index, item in enumerate(OBJECTS):
        alone = await ask(family, Segment(picture(), (item,), multimask, return_logits=True))
        together = many.result.masks[index * each : (index + 1) * each]
        assert [plain(mask) for mask in together] == [plain(mask) for mask in alone.result.masks]
        assert all(mask.logits.shape == (256, 256) and mask.logits.dtype == np.float16 for mask in together)


async def test_one_decoder_call_a_group_and_only_the_outputs_needed():
    family, engines = served()
    asked = []
    for part in PARTS:
        original = engines[part].infer

        async def spy(inputs, deadline, *, outputs=(), part=part, original=original, **more):
            asked.append((part, outputs, {name: value.shape[0] for name, value in inputs.items()}))
            return await original(inputs, deadline, outputs=outputs, **more)

        engines[part].infer = spy
    await ask(family, Segment(picture(), OBJECTS))
    assert asked[0] == ("image_encoder", ("features",), {"image": 1})
    assert [call for call in asked if call[0].startswith("mask_")] == [
        ("mask_decoder", ("mask", "iou"), {"features": 1, "sparse": 3}),
        ("mask_decoder", ("mask", "iou"), {"features": 1, "sparse": 2}),
        ("mask_refiner", ("mask", "iou"), {"features": 1, "sparse": 1, "logits": 1}),
    ]
    await ask(family, Segment(picture(), OBJECTS[:1], multimask=True))
    assert asked[-1][:2] == ("mask_decoder", ("masks", "ious"))


async def test_masks_come_back_in_the_original_frame():
    family, _ = served()
    answer = await ask(family, Segment(picture(), OBJECTS[:1], output=MaskFormat.PACKED, return_logits=True))
    (only,) = answer.result.masks
    assert answer.result.frame.size_px == only.mask.size_px == (120, 90)
    expected = binary_mask(only.logits.astype(np.float32), (256, 192), (120, 90))
    assert only.mask.area_px == pytest.approx(expected.sum(), abs=2)
    assert answer.model.name == "litemedsam"


async def test_a_picture_is_encoded_once_and_the_handle_stands_for_it():
    family, engines = served()
    first = await ask(family, Segment(picture(), OBJECTS[:1]))
    second = await ask(family, Segment(picture(), OBJECTS[:1]))
    by_handle = await ask(family, Segment(ImageHandle(first.result.image_id), OBJECTS[:1]))
    assert [answer.features for answer in (first, second, by_handle)] == ["miss", "hit", "hit"]
    assert engines["image_encoder"].calls == 1
    assert plain(first.result.masks[0]) == plain(second.result.masks[0]) == plain(by_handle.result.masks[0])
    assert (await ask(family, Segment(picture(1), OBJECTS[:1]))).features == "miss"
    assert (await ask(family, Segment(picture(), OBJECTS[:1]), tenant="other")).features == "miss"


async def test_encode_lookup_drop():
    family, _ = served()
    made = await ask(family, Encode(picture()))
    handle = ImageHandle(made.result.image_id)
    assert handle.affinity == picture().content_key()[:32]
    assert (made.features, made.result.frame.size_px, made.result.expires_in_s) == ("miss", (120, 90), 60)
    assert (await ask(family, Encode(picture()))).features == "hit"
    assert (await ask(family, Lookup(handle))).result == made.result
    assert (await ask(family, Lookup(handle, drop=True))).result.expires_in_s == 0
    for task in (Lookup(handle), Lookup(handle, drop=True), Segment(handle, OBJECTS)):
        with pytest.raises(Fault) as raised:
            await ask(family, task)
        assert raised.value.kind is Kind.UNKNOWN_HANDLE


async def test_another_tenant_cannot_use_a_handle():
    family, _ = served()
    handle = ImageHandle((await ask(family, Encode(picture()))).result.image_id)
    for task in (Lookup(handle), Lookup(handle, drop=True), Segment(handle, OBJECTS)):
        with pytest.raises(Fault) as raised:
            await ask(family, task, tenant="other")
        assert raised.value.kind is Kind.UNKNOWN_HANDLE
    await ask(family, Lookup(handle))


async def test_a_prompt_outside_the_image_is_refused_before_the_encode():
    family, engines = served()
    outside = (OBJECTS[0], ObjectPrompt(box=Box(0, 0, 121, 10)))
    with pytest.raises(Fault) as raised:
        await ask(family, Segment(picture(), outside))
    assert (raised.value.kind, raised.value.param) == (Kind.INVALID, "boxes")
    assert engines["image_encoder"].calls == 0
    handle = ImageHandle((await ask(family, Encode(picture()))).result.image_id)
    for image in (handle, picture()):
        with pytest.raises(Fault) as raised:
            await ask(family, Segment(image, outside))
        assert raised.value.param == "boxes"
    assert engines["mask_decoder"].calls == 0


async def test_logits_alone_are_refused_before_anything_is_decoded():
    family, _ = served(decode=None)
    with pytest.raises(Fault) as raised:
        await ask(family, Segment(picture(), (ObjectPrompt(logits=EARLIER),)))
    assert raised.value.param == "mask"


async def test_two_requests_at_once_share_one_encode_and_a_bad_one_fails_alone():
    family, engines = served()
    good = Segment(picture(), OBJECTS[:1])
    bad = Segment(picture(), (ObjectPrompt(points=(Point(500, 1),)),))
    found = await asyncio.gather(*(ask(family, task) for task in (bad, good, good)), return_exceptions=True)
    assert isinstance(found[0], Fault)
    assert sorted(answer.features for answer in found[1:]) == ["coalesced", "miss"]
    assert engines["image_encoder"].calls == 1


async def test_a_waiter_gives_up_at_its_own_deadline():
    family, engines = served()
    gate, original = asyncio.Event(), engines["image_encoder"].infer

    async def slow(*given, **more):
        await gate.wait()
        return await original(*given, **more)

    engines["image_encoder"].infer = slow
    patient = asyncio.create_task(ask(family, Encode(picture())))
    await asyncio.sleep(0)
    with pytest.raises(Fault) as raised:
        await ask(family, Encode(picture()), deadline_s=0.05)
    assert raised.value.kind is Kind.DEADLINE
    gate.set()
    assert (await patient).features == "miss"


async def test_stages_are_measured_and_skipped_on_a_hit():
    family, _ = served()
    first, second = Stages(), Stages()
    assert (await ask(family, Segment(picture(), OBJECTS), first)).stages is first.seconds
    assert set(first.seconds) == {"decode", "preprocess", "encode", "decode_mask", "postprocess", "serialise"}
    await ask(family, Segment(picture(), OBJECTS), second)
    assert set(second.seconds) == {"decode_mask", "postprocess", "serialise"}


async def test_a_passed_deadline_costs_no_work():
    family, engines = served(decode=None)
    with pytest.raises(Fault) as raised:
        await ask(family, Segment(picture(), OBJECTS), deadline_s=-1)
    assert raised.value.kind is Kind.DEADLINE
    assert engines["image_encoder"].calls == 0


async def test_a_task_of_another_pool_is_refused():
    family, _ = served()
    with pytest.raises(Fault) as raised:
        await ask(family, Classify((picture(),), Labels(("a",))))
    assert raised.value.kind is Kind.INVALID


def test_a_store_too_small_for_one_image_is_a_set_up_error():
    with pytest.raises(SetupError, match="features_bytes"):
        served(store=FeaturesStore(4_194_303, 60))
    served(store=FeaturesStore(4_194_304, 60))
