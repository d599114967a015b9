"""One picture, over a real arena: the family's choices of masks on engines made of the modules."""

import asyncio

import numpy as np
import pytest
from arenas import small_arena
from sam2_pair import SIDE, ArenaEngine, engine_of, hugging_face, record

from serving.build.nets import medsam2_layout
from serving.domain.image import ImageHandle
from serving.domain.prompt import Box, Labels, MaskLogits, ObjectPrompt, Point
from serving.domain.request import Classify, Encode, Segment
from serving.embeddings.store import FeaturesStore
from serving.errors import Fault, SetupError
from serving.families.family import Tools
from serving.families.medsam2.family import DECLARATION
from serving.families.medsam2.prompts import PAD, to_model, to_travel, tokens
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures

SLOT_BYTES = 4 * (64 * 256 + 64 * 16 * 16 + 32 * 32 * 32)
BOX = ObjectPrompt(box=Box(10, 8, 70, 40))
CLICK = ObjectPrompt(points=(Point(30, 20), Point(5, 5, positive=False)))
PICTURE = fixtures.raw_image(np.random.default_rng(1).integers(0, 255, (50, 80), np.uint8))


@pytest.fixture(scope="module")
def model():
    return medsam2_layout.load(hugging_face().state_dict(), SIDE)


@pytest.fixture
def served(model):
    with small_arena(slots=4, slot_bytes=SLOT_BYTES) as arena:
        opened = {}

        def engine(spec, record):
            part = spec.name.removeprefix("medsam2_")
            opened[part] = engine_of(ArenaEngine, model, part, spec)
            opened[part].arena = arena
            return opened[part]

        family = DECLARATION.open(record(), Tools(engine, fixtures.decode, fixtures.run, FeaturesStore(arena, 60)))
        family.opened = opened
        yield family


def ask(family, *objects, image=PICTURE, **more):
    return asyncio.run(family.answer(fixtures.request(Segment(image, objects, **more)), Stages()))


def test_objects_together_are_as_alone_on_one_encode(served):
    together = ask(served, BOX, CLICK)
    assert [mask.object for mask in together.result.masks] == [0, 1]
    for number, item in enumerate((BOX, CLICK)):
        alone = ask(served, item)
        assert alone.features == "hit"
        assert alone.result.masks[0].mask == together.result.masks[number].mask
        assert alone.result.masks[0].score == pytest.approx(together.result.masks[number].score, abs=1e-6)
    assert served.opened["image_encoder"].calls == 1


def test_three_candidates_where_they_are_asked_for(served):
    found = ask(served, CLICK, multimask=True).result.masks
    assert [mask.object for mask in found] == [0, 0, 0]
    assert len({mask.mask.data for mask in found}) > 1
    assert all(0 <= mask.score <= 1 for mask in found)


def test_a_handle_and_earlier_logits_refine(served):
    handle = asyncio.run(served.answer(fixtures.request(Encode(PICTURE)), Stages())).result.image_id
    first = ask(served, BOX, image=ImageHandle(handle), return_logits=True).result.masks[0]
    assert first.logits.shape == (256, 256)
    again = ObjectPrompt(box=BOX.box, logits=MaskLogits(first.logits.astype(np.float32)))
    refined = ask(served, again, image=ImageHandle(handle)).result.masks[0]
    assert served.opened["mask_refiner"].calls == 1
    assert served.opened["image_encoder"].calls == 1
    assert refined.mask.size_px == (80, 50)


def test_logits_travel_and_come_back():
    logits = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
    assert np.allclose(to_model(to_travel(logits), 128), logits, atol=1e-6)


def test_tokens_are_sam2s():
    prompt = ObjectPrompt(box=Box(10, 8, 70, 40), points=(Point(30, 20),))
    assert tokens(prompt, (80, 50), 512) == (
        (10 * 6.4, 8 * 10.24, 2), (70 * 6.4, 40 * 10.24, 3), (30 * 6.4, 20 * 10.24, 1), (0.0, 0.0, PAD),
    )  # fmt: skip


def test_what_it_cannot_answer_is_refused(served):
    with pytest.raises(Fault, match="need a box or a point"):
        ask(served, ObjectPrompt(logits=MaskLogits(np.zeros((256, 256), np.float32))))
    with pytest.raises(Fault, match="leaves the image"):
        ask(served, ObjectPrompt(box=Box(0, 0, 81, 5)))
    with pytest.raises(Fault, match="takes boxes, points or a mask"):
        asyncio.run(served.answer(fixtures.request(Classify((PICTURE,), Labels(("a",)))), Stages()))
    with pytest.raises(SetupError, match="needs a Features store"):
        DECLARATION.open(record(), Tools(None, fixtures.decode, fixtures.run))
