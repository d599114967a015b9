import asyncio

import numpy as np
import pytest
from arenas import small_arena

from serving.domain.image import ImageHandle
from serving.domain.prompt import Box, Labels, MaskLogits, ObjectPrompt, Point
from serving.domain.request import Classify, Encode, Lookup, MaskFormat, Priority, Segment
from serving.embeddings.store import FeaturesStore
from serving.errors import Fault, Kind, SetupError
from serving.families.litemedsam.family import DECLARATION
from serving.families.litemedsam.postprocess import binary_mask
from serving.families.sam_engines import FOLDED_TOKENS, decoder_call
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures

PARTS = ("image_encoder", "mask_decoder", "mask_refiner")
MANIFEST = fixtures.manifest("litemedsam", "adaptive", PARTS)
ROWS, COLUMNS = np.mgrid[:256, :256].astype(np.float32)


def image_encoder(inputs, record):
    return {"x0": np.full((1, 1), inputs["image"].mean(), np.float32)}


def blob(points, labels, shift):
    """Logits of a disc around the mean of one object's real tokens: depends on that object alone."""
    real = points[labels >= 0]
    x, y = real[:, 0].mean(), real[:, 1].mean()
    return 20 + shift + len(real) - np.hypot(COLUMNS - x, ROWS - y)


def mask_decoder(inputs, record):
    """(1, P, ...) of one image's objects."""
    points, labels = inputs["points"][0], inputs["labels"][0]
    shift = float(inputs["x0"].mean()) + (inputs["logits"][0].mean(axis=(1, 2, 3)) if "logits" in inputs else 0)
    objects = zip(points, labels, np.broadcast_to(shift, len(points)), strict=True)
    masks = np.stack([[blob(where, what, extra + n) for n in range(4)] for where, what, extra in objects]).astype(np.float32)
    ious = masks.mean(axis=(2, 3)).astype(np.float32)
    made = {"mask": masks[:, :1], "iou": ious[:, :1], "masks": masks[:, 1:], "ious": ious[:, 1:]}
    return {name: value[None] for name, value in made.items()}


FUNCTIONS = {"image_encoder": image_encoder, "mask_decoder": mask_decoder, "mask_refiner": mask_decoder}


@pytest.fixture
def store():
    with small_arena(slots=4) as arena:
        yield FeaturesStore(arena, 60)


@pytest.fixture
def served(store):
    """Opens the family over a store: (family, part -> FakeEngine)."""

    def opening(**given):
        opened = {}
        family = DECLARATION.open(MANIFEST, fixtures.tools(FUNCTIONS, opened=opened, store=store, **given))
        return family, {part: engine for (part, _), engine in opened.items()}

    return opening


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
async def test_many_objects_in_one_call_equal_one_at_a_time(served, multimask):
    family, _ = served()
    many = await ask(family, Segment(picture(), OBJECTS, multimask, return_logits=True))
    each = 3 if multimask else 1
    assert [mask.object for mask in many.result.masks] == [n for n in range(6) for _ in range(each)]
    for index, item in enumerate(OBJECTS):
        alone = await ask(family, Segment(picture(), (item,), multimask, return_logits=True))
        together = many.result.masks[index * each : (index + 1) * each]
        assert [plain(mask) for mask in together] == [plain(mask) for mask in alone.result.masks]
        assert all(mask.logits.shape == (256, 256) and mask.logits.dtype == np.float16 for mask in together)


async def test_one_decoder_call_a_group_and_only_the_outputs_needed(served):
    family, engines = served()
    asked = []
    for part in PARTS:
        original = engines[part].infer

        async def spy(inputs, deadline, *, outputs=(), part=part, original=original, **more):
            asked.append((part, outputs, {name: value.shape[:2] for name, value in inputs.items()}))
            assert more["slot"] is not None
            assert more["priority"] is Priority.INTERACTIVE
            return await original(inputs, deadline, outputs=outputs, **more)

        engines[part].infer = spy
    await ask(family, Segment(picture(), OBJECTS))
    assert asked == [
        ("image_encoder", (), {"image": (1, 3)}),
        ("mask_decoder", ("mask", "iou"), {"points": (1, 3), "labels": (1, 3)}),
        ("mask_decoder", ("mask", "iou"), {"points": (1, 2), "labels": (1, 2)}),
        ("mask_refiner", ("mask", "iou"), {"points": (1, 1), "labels": (1, 1), "logits": (1, 1), "earlier": (1, 1)}),
    ]
    await ask(family, Segment(picture(), OBJECTS[:1], multimask=True))
    assert asked[-1][:2] == ("mask_decoder", ("masks", "ious"))


@pytest.mark.parametrize(
    ("clicks", "part"), [(FOLDED_TOKENS - 1, "mask_decoder"), (FOLDED_TOKENS, "mask_refiner"), (64, "mask_refiner")]
)
async def test_many_clicks_go_to_the_decoder_that_is_not_folded(served, clicks, part):
    family, engines = served()
    item = ObjectPrompt(points=tuple(Point(10 + n, 20) for n in range(clicks)))
    answer = await ask(family, Segment(picture(), (item, OBJECTS[0]), return_logits=True))
    assert {name: engine.calls for name, engine in engines.items()} == {
        "image_encoder": 1, "mask_decoder": 1 + (part == "mask_decoder"), "mask_refiner": int(part == "mask_refiner")
    }  # fmt: skip
    alone = await ask(family, Segment(picture(), OBJECTS[:1], return_logits=True))
    assert plain(answer.result.masks[1]) == plain(alone.result.masks[0])


def test_a_call_without_earlier_answers_says_so():
    points, labels = np.zeros((3, FOLDED_TOKENS + 1, 2), np.float32), np.ones((3, FOLDED_TOKENS + 1), np.int64)
    part, given = decoder_call(points, labels, None)
    assert (part, given["logits"].shape, given["earlier"].tolist()) == ("mask_refiner", (1, 3, 1, 256, 256), [[0, 0, 0]])
    part, given = decoder_call(points[:, :2], labels[:, :2], np.ones((3, 1, 256, 256), np.float32))
    assert (part, given["earlier"].tolist()) == ("mask_refiner", [[1, 1, 1]])
    assert set(decoder_call(points[:, :2], labels[:, :2], None)[1]) == {"points", "labels"}


async def test_masks_come_back_in_the_original_frame(served):
    family, _ = served()
    answer = await ask(family, Segment(picture(), OBJECTS[:1], output=MaskFormat.PACKED, return_logits=True))
    (only,) = answer.result.masks
    assert answer.result.frame.size_px == only.mask.size_px == (120, 90)
    expected = binary_mask(only.logits.astype(np.float32), (256, 192), (120, 90))
    assert only.mask.area_px == pytest.approx(expected.sum(), abs=2)
    assert answer.model.name == "litemedsam"


async def test_a_picture_is_encoded_once_and_the_handle_stands_for_it(served):
    family, engines = served()
    first = await ask(family, Segment(picture(), OBJECTS[:1]))
    second = await ask(family, Segment(picture(), OBJECTS[:1]))
    by_handle = await ask(family, Segment(ImageHandle(first.result.image_id), OBJECTS[:1]))
    assert [answer.features for answer in (first, second, by_handle)] == ["miss", "hit", "hit"]
    assert engines["image_encoder"].calls == 1
    assert plain(first.result.masks[0]) == plain(second.result.masks[0]) == plain(by_handle.result.masks[0])
    assert (await ask(family, Segment(picture(1), OBJECTS[:1]))).features == "miss"
    assert (await ask(family, Segment(picture(), OBJECTS[:1]), tenant="other")).features == "miss"


async def test_encode_lookup_drop(served):
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


async def test_another_tenant_cannot_use_a_handle(served):
    family, _ = served()
    handle = ImageHandle((await ask(family, Encode(picture()))).result.image_id)
    for task in (Lookup(handle), Lookup(handle, drop=True), Segment(handle, OBJECTS)):
        with pytest.raises(Fault) as raised:
            await ask(family, task, tenant="other")
        assert raised.value.kind is Kind.UNKNOWN_HANDLE
    await ask(family, Lookup(handle))


async def test_a_prompt_outside_the_image_is_refused_before_the_encode(served):
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


async def test_logits_alone_are_refused_before_anything_is_decoded(served):
    family, _ = served(decode=None)
    with pytest.raises(Fault) as raised:
        await ask(family, Segment(picture(), (ObjectPrompt(logits=EARLIER),)))
    assert raised.value.param == "mask"


async def test_two_requests_at_once_share_one_encode_and_a_bad_one_fails_alone(served):
    family, engines = served()
    good = Segment(picture(), OBJECTS[:1])
    bad = Segment(picture(), (ObjectPrompt(points=(Point(500, 1),)),))
    found = await asyncio.gather(*(ask(family, task) for task in (bad, good, good)), return_exceptions=True)
    assert isinstance(found[0], Fault)
    assert sorted(answer.features for answer in found[1:]) == ["coalesced", "miss"]
    assert engines["image_encoder"].calls == 1


async def test_a_waiter_gives_up_at_its_own_deadline(served):
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


async def test_stages_are_measured_and_skipped_on_a_hit(served):
    family, _ = served()
    first, second = Stages(), Stages()
    assert (await ask(family, Segment(picture(), OBJECTS), first)).stages is first.seconds
    assert set(first.seconds) == {"decode", "preprocess", "queue", "encode", "decode_mask", "postprocess", "serialise"}
    await ask(family, Segment(picture(), OBJECTS), second)
    assert set(second.seconds) == {"queue", "decode_mask", "postprocess", "serialise"}


async def test_a_passed_deadline_costs_no_work(served):
    family, engines = served(decode=None)
    with pytest.raises(Fault) as raised:
        await ask(family, Segment(picture(), OBJECTS), deadline_s=-1)
    assert raised.value.kind is Kind.DEADLINE
    assert engines["image_encoder"].calls == 0


async def test_a_task_of_another_pool_is_refused(served):
    family, _ = served()
    with pytest.raises(Fault) as raised:
        await ask(family, Classify((picture(),), Labels(("a",))))
    assert raised.value.kind is Kind.INVALID


def test_no_store_is_a_set_up_error():
    with pytest.raises(SetupError, match="adaptive pool"):
        DECLARATION.open(MANIFEST, fixtures.tools(FUNCTIONS))


def test_what_the_encoder_writes_is_what_the_decoders_read():
    specs = DECLARATION.specs(MANIFEST)
    written = specs["image_encoder"].writes
    for part in ("mask_decoder", "mask_refiner"):
        assert specs[part].reads == written[: len(specs[part].reads)] != ()
        assert specs[part].join == 1
        assert specs[part].max_batch == 1


async def test_a_full_arena_is_told_and_the_next_moment_has_room(served, store):
    family, engines = served()
    held = [store.arena.claim(f"busy {n}") for n in range(4)]
    with pytest.raises(Fault) as raised:
        await ask(family, Encode(picture()))
    assert (raised.value.kind, raised.value.retry_after_s) == (Kind.POOL_FULL, 1.0)
    assert engines["image_encoder"].calls == 0
    held.pop()
    assert (await ask(family, Encode(picture()))).features == "miss"


async def test_more_pictures_than_slots_are_answered_one_after_another(served):
    family, engines = served()
    for seed in range(10):
        assert (await ask(family, Segment(picture(seed), OBJECTS[:1]))).features == "miss"
    assert engines["image_encoder"].calls == 10
    assert (await ask(family, Segment(picture(9), OBJECTS[:1]))).features == "hit"
    assert (await ask(family, Segment(picture(0), OBJECTS[:1]))).features == "miss"


async def test_features_stay_while_their_objects_are_decoded(served, store):
    """Other pictures push out what nobody holds, and the handle's owner forgets it: the answer is right all the same."""
    family, engines = served()
    before = await ask(family, Segment(picture(), OBJECTS[:2]))
    original, generations = engines["mask_decoder"].infer, []

    async def slow(inputs, deadline, **more):
        generations.append((more["slot"].index, more["slot"].generation))
        if len(generations) == 1:
            await ask(family, Lookup(ImageHandle(before.result.image_id), drop=True))
            for seed in range(1, 6):
                await ask(family, Encode(picture(seed)))
        return await original(inputs, deadline, **more)

    engines["mask_decoder"].infer = slow
    after = await ask(family, Segment(picture(), OBJECTS[:2]))
    assert len(generations) == 1
    assert [plain(mask) for mask in after.result.masks] == [plain(mask) for mask in before.result.masks]
    assert (await ask(family, Segment(picture(), OBJECTS[:2]))).features == "miss"


async def test_a_failed_encode_is_tried_again_by_the_next_request(served):
    family, engines = served()
    original = engines["image_encoder"].infer

    async def away(*given, **more):
        raise Fault(Kind.ENGINE_UNAVAILABLE, "away")

    engines["image_encoder"].infer = away
    for _ in range(6):
        with pytest.raises(Fault) as raised:
            await ask(family, Encode(picture()))
        assert raised.value.kind is Kind.ENGINE_UNAVAILABLE
    engines["image_encoder"].infer = original
    assert (await ask(family, Encode(picture()), deadline_s=10)).features == "miss"
