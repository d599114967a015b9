"""The walk on PyTorch's own modules against upstream's loop, written here object by object and slice by slice.

Weights are seeded. The loop is that of `extensions/seg_3dnii_sparse_marker/medsam_infer_3Dbox_adrenal.py` (bowang-lab/MedSAM),
with the image prepared as `MedSAM_Inference.py` does.
"""

from functools import partial

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arenas import small_arena
from sams import seeded, tiny_sam

from serving.build.nets import sam_parts
from serving.domain.image import Frame, Image
from serving.domain.prompt import Box, ObjectPrompt
from serving.domain.volume import KeyMask, VolumeObject
from serving.errors import Fault
from serving.families.medsam.family import DECLARATION
from serving.families.medsam.preprocess import squash
from serving.families.medsam.volume import next_box
from serving.families.volume_slices import PromptableSlices
from tests.unit.families import fixtures
from tests.unit.families.sliced import COLUMNS, DEPTH, PARTS, ROWS, SLOT_BYTES, Served, objects, scan

BOXES = [(14, 10, 0, 34, 30, 4), (20, 16, 3, 50, 40, 6)]
OWN = {2: (14, 10, 34, 30), 3: (16, 12, 36, 33), 4: (18, 12, 40, 34)}
"""Slice -> the box that is shown on it."""


def manifest(preprocessing):
    return fixtures.manifest("medsam", "adaptive", PARTS, {"image_size": 1024, "preprocessing": preprocessing})


@pytest.fixture(scope="module")
def sam():
    """A small convolution in place of the encoder: the walk is tested, not the encoder's seconds on a small machine."""
    model = tiny_sam()
    model.image_encoder = seeded(
        torch.nn.Sequential(torch.nn.Conv2d(3, 16, 16, 16), torch.nn.GELU(), torch.nn.Conv2d(16, 256, 1))
    )
    return model


@torch.inference_mode()
def features_of(sam, tensor):
    return sam.image_encoder(torch.from_numpy(tensor)).numpy()


@torch.inference_mode()
def decoded(sam, features, points, labels):
    sparse = sam.prompt_encoder(torch.from_numpy(np.array(points, np.float32)), torch.from_numpy(np.array(labels)))
    return sam_parts.Decode(sam)(torch.from_numpy(np.array(features)), sparse)[0].numpy()


def upstream(sam, shown, first, last):
    """(slices, rows, columns) bool of one object. `shown`: slice -> box; the walk begins on the one with the largest."""
    images = scan().transpose(2, 1, 0)
    found, boxes = np.zeros(images.shape, bool), dict(shown)
    to_model = 1024 / np.array([COLUMNS, ROWS, COLUMNS, ROWS])

    def segment(z, before):
        if z in boxes:
            box = boxes[z] * to_model
        elif found[before].any():
            large = cv2.resize(found[before].astype(np.uint8), (1024, 1024), interpolation=cv2.INTER_NEAREST)
            y, x = np.where(large > 0)
            box = np.array([max(0, x.min() - 5), max(0, y.min() - 5), min(1024, x.max() + 5), min(1024, y.max() + 5)])
        else:
            box = boxes[min(boxes, key=lambda other: abs(other - z))] * to_model
        boxes[z] = box / to_model
        features = features_of(sam, squash(Image(images[z], Frame((COLUMNS, ROWS)))).tensor)
        logits = decoded(sam, features, np.float32(box).reshape(1, 2, 2), [[2, 3]])
        large = F.interpolate(torch.sigmoid(torch.from_numpy(logits)), (ROWS, COLUMNS), mode="bilinear", align_corners=False)
        found[z] = large[0, 0].numpy() > 0.5

    middle = max(shown, key=lambda z: np.prod(np.subtract(shown[z][2:], shown[z][:2])))
    for z in range(middle, last + 1):
        segment(z, z - 1)
    for z in range(middle - 1, first - 1, -1):
        segment(z, z + 1)
    return found


@pytest.fixture
def served(sam):
    with small_arena(slots=6, slot_bytes=SLOT_BYTES) as arena:
        how = partial(features_of, sam), partial(decoded, sam)
        yield lambda preprocessing="july-2023": Served(DECLARATION, manifest(preprocessing), arena, 9 * SLOT_BYTES, *how)


def is_close(found, expected):
    """One pixel of the slices may differ: PyTorch's bilinear weights and OpenCV's are rounded apart."""
    assert 0.01 < expected.mean() < 0.99
    return np.count_nonzero(found != expected) <= 1


async def test_the_masks_are_those_of_upstream_s_loop_object_by_object(sam, served):
    mine = served()
    found = await mine.ask(objects(BOXES))
    first, second = (upstream(sam, {(z0 + z1) // 2: (x0, y0, x1, y1)}, z0, z1) for x0, y0, z0, x1, y1, z1 in BOXES)
    assert is_close(found == 2, second)
    assert is_close(found == 1, first & ~second)
    assert mine.calls("image_encoder") == len({*range(5), *range(3, 7)})


async def test_a_box_on_each_slice_is_each_slice_on_its_own(sam, served):
    mine = served()
    shown = [VolumeObject(ObjectPrompt(box=Box(*box)), z, z, z, label=0) for z, box in OWN.items()]
    found = await mine.ask(tuple(shown))
    assert is_close(found == 1, upstream(sam, OWN, min(OWN), max(OWN)))
    assert [(each.object, each.first, each.last) for each in mine.answer.objects] == [(0, 2, 4)]


@pytest.fixture
def asked(monkeypatch):
    """(slice, the first object's tokens) of each decoder call."""
    seen, whole = [], PromptableSlices.decode

    async def decode(self, index, features, prompts):
        seen.append((index, prompts[0].tokens))
        return await whole(self, index, features, prompts)

    monkeypatch.setattr(PromptableSlices, "decode", decode)
    return seen


async def test_behind_an_empty_mask_the_slice_s_own_box_goes_on(served, asked, monkeypatch):
    monkeypatch.setattr(PromptableSlices, "mask", lambda self, said: np.zeros((ROWS, COLUMNS), bool))
    mine = served()
    await mine.ask(objects([(15, 11, 2, 30, 33, 4)]))
    box = ((256.0, 256.0, 2), (512.0, 768.0, 3))
    assert asked == [(3, box), (4, box), (2, box)]
    # Without an extent such a mask is the end.
    asked.clear()
    await mine.ask((VolumeObject(ObjectPrompt(box=Box(15, 11, 30, 33)), 3),))
    assert asked == [(3, box)]
    assert mine.told[-1].total == DEPTH


@pytest.mark.parametrize(("preprocessing", "rows"), [("july-2023", 1024), ("april-2023", 751), ("sam", 751)])
async def test_a_mask_on_the_key_slice_is_the_box_around_it_in_the_model_s_frame(served, asked, preprocessing, rows):
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[22:, 15:30] = True
    await served(preprocessing).ask((VolumeObject(KeyMask(mask), 4, 4, 4),))
    (_, ((left, top, _), (right, bottom, _))) = asked[0]
    assert (left, right, bottom) == (256 - 5, 512 - 1 + 5, rows)
    assert abs(top - (rows / 2 - 5)) <= 1


def test_the_next_box_does_not_leave_the_frame_and_nothing_has_none():
    assert next_box(0, np.ones((8, 8), bool), (1024, 512)) == (0, 0, 1024, 512)
    assert next_box(0, np.zeros((8, 8), bool), (1024, 512)) is None


async def test_a_box_outside_is_refused_before_anything_is_encoded(served):
    mine = served()
    with pytest.raises(Fault, match="leaves the image"):
        await mine.ask(objects([(14, 10, 0, 61, 30, 4)]))
    assert mine.calls("image_encoder") == 0
