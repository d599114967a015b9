import gzip
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from arenas import small_arena

from serving.domain.image import RangeWindow
from serving.domain.prompt import Box, MaskLogits, ObjectPrompt, Point
from serving.domain.request import Encode, Segment
from serving.domain.volume import EncodedVolume, SegmentVolume, VolumeObject
from serving.embeddings.store import FeaturesStore
from serving.errors import Fault, SetupError
from serving.families.litemedsam.family import DECLARATION as LITEMEDSAM
from serving.families.medsam.family import DECLARATION, PROCEDURES
from serving.imaging.volume import Volume
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures

PARTS = ("image_encoder", "mask_decoder", "mask_refiner")
WIDE = fixtures.raw_image(np.random.default_rng(0).integers(0, 256, (50, 200)).astype(np.uint8))
EARLIER = MaskLogits(np.full((256, 256), 3, np.float32))
BOX = ObjectPrompt(box=Box(20, 10, 61, 40))


def manifest(preprocessing):
    return fixtures.manifest("medsam", "adaptive", PARTS, {"image_size": 1024, "preprocessing": preprocessing})


def unread(encoded):
    raise AssertionError("another model has read the volume")


@pytest.fixture
def served():
    """Opens the family: (family, what its engines were asked, in order)."""
    asked = []

    def encoder(inputs, record):
        asked.append(("image_encoder", inputs))
        return {"x0": np.zeros((1, 1), np.float32)}

    def decoder(part):
        def answer(inputs, record):
            asked.append((part, inputs))
            count = inputs["points"].shape[1]
            made = {"mask": (1, 256, 256), "iou": (1,), "masks": (3, 256, 256), "ious": (3,)}
            return {name: np.ones((1, count, *shape), np.float32) for name, shape in made.items()}

        return answer

    functions = {"image_encoder": encoder, "mask_decoder": decoder("mask_decoder"), "mask_refiner": decoder("mask_refiner")}
    with small_arena() as arena:
        store = FeaturesStore(arena, 60)
        tools = replace(fixtures.tools(functions, store=store), read_volume=unread)
        yield lambda preprocessing: DECLARATION.open(manifest(preprocessing), tools), asked


@pytest.mark.parametrize(
    ("preprocessing", "corners"),
    [
        ("july-2023", [[102.4, 204.8], [312.32, 819.2]]),  # each axis to 1024
        ("april-2023", [[102.4, 51.2], [312.32, 204.8]]),  # one ratio
        ("sam", [[102.4, 51.2], [312.32, 204.8]]),
    ],
)
async def test_prompts_are_put_where_the_preprocessing_puts_pixels(served, preprocessing, corners):
    opening, asked = served
    answer = await opening(preprocessing).answer(fixtures.request(Segment(WIDE, (BOX,))), Stages())
    (_, encoded), (part, given) = asked
    assert encoded["image"].shape == (1, 3, 1024, 1024)
    content = encoded["image"][0, :, 300:]
    assert (content == 0).all() == (preprocessing != "july-2023")
    assert part == "mask_decoder"
    assert np.allclose(given["points"], [[corners]])
    assert given["labels"].tolist() == [[[2, 3]]]
    assert answer.result.masks[0].mask.size_px == (200, 50)
    assert answer.result.masks[0].mask.area_px == 200 * 50


async def test_clicks_earlier_logits_and_three_candidates(served):
    opening, asked = served
    objects = (ObjectPrompt(points=(Point(20, 10), Point(60, 40, positive=False))), ObjectPrompt(box=BOX.box, logits=EARLIER))
    answer = await opening("july-2023").answer(fixtures.request(Segment(WIDE, objects, multimask=True)), Stages())
    assert [mask.object for mask in answer.result.masks] == [0, 0, 0, 1, 1, 1]
    (_, clicks), (refiner, refined) = asked[1:]
    assert clicks["labels"].tolist() == [[[1, 0, -1]]]
    assert refiner == "mask_refiner"
    assert refined["logits"].shape == (1, 1, 1, 256, 256)
    assert refined["earlier"].tolist() == [[1]]
    with pytest.raises(Fault, match="need a box or a point"):
        await opening("july-2023").answer(fixtures.request(Segment(WIDE, (ObjectPrompt(logits=EARLIER),))), Stages())


async def test_features_of_one_preprocessing_are_not_another_s(served):
    opening, asked = served
    for preprocessing in ("july-2023", "april-2023", "july-2023"):
        await opening(preprocessing).answer(fixtures.request(Encode(WIDE)), Stages())
    assert len(asked) == 2


def test_a_record_without_a_preprocessing_is_refused():
    for options in ({}, {"preprocessing": "may-2023"}):
        bad = fixtures.manifest("medsam", "adaptive", PARTS, options)
        with pytest.raises(SetupError, match="names no preprocessing"):
            DECLARATION.open(bad, fixtures.tools({}))


def test_sam_s_two_users_of_one_preprocessing_share_its_name():
    assert PROCEDURES["sam"].id == PROCEDURES["april-2023"].id != PROCEDURES["july-2023"].id


def test_specs_are_litemedsam_s_but_for_the_side():
    ours, theirs = (one.specs(manifest("july-2023")) for one in (DECLARATION, LITEMEDSAM))
    assert ours["image_encoder"].inputs[0].shape == (3, 1024, 1024)
    assert ours["image_encoder"].writes == theirs["image_encoder"].writes
    assert (ours["mask_decoder"], ours["mask_refiner"]) == (theirs["mask_decoder"], theirs["mask_refiner"])


async def test_boxes_that_another_model_found_are_segmented_slice_by_slice(served):
    opening, asked = served
    samples = np.random.default_rng(1).integers(-900, 900, (200, 50, 6)).astype(np.int16)
    volume = Volume(samples, spacing_mm=(1.0, 1.0, 3.0))
    objects = (
        VolumeObject(ObjectPrompt(box=Box(20, 10, 61, 40)), 1, 1, 4, follow=False, label=0),
        VolumeObject(ObjectPrompt(box=Box(0, 0, 100, 25)), 3, 3, 4, follow=False, label=1),
    )
    task = SegmentVolume(EncodedVolume((b"read already",), window=RangeWindow(-500, 1000)), objects)
    family, told = opening("july-2023"), []

    async def tell(event):
        told.append(event)

    answer = await family.answer_volume(fixtures.request(task), Stages(), tell, volume)
    assert [each.slice for each in told[1:]] == [1, 2, 3, 4]
    assert [part for part, _ in asked].count("image_encoder") == 4, "each slice is encoded once for both"
    boxes = [given["points"][0].tolist() for part, given in asked if part == "mask_decoder"]
    first, second = [[102.4, 204.8], [312.32, 819.2]], [[0, 0], [512, 512]]
    assert np.allclose([row for call in boxes for row in call], [first, first, first, second, first, second])
    labels = np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.data)).dataobj)
    assert [np.unique(labels[..., k]).tolist() for k in range(6)] == [[0], [1], [1], [2], [2], [0]]
    assert [each.voxels for each in answer.objects] == [4 * 200 * 50, 2 * 200 * 50]
