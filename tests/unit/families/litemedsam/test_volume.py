"""The walk on PyTorch's own modules against upstream's loop, written here object by object and slice by slice.

Weights are seeded. The loop is that of CVPR24_LiteMedSAM_infer.py (bowang-lab/MedSAM, branch LiteMedSAM).
"""

from functools import partial
from itertools import count

import cv2
import numpy as np
import pytest
import torch
from arenas import small_arena

from serving.build.nets import litemedsam
from serving.domain.prompt import Box, ObjectPrompt, Point
from serving.domain.volume import ClassNames, KeyMask, VolumeAccepted, VolumeObject, VolumeProgress
from serving.errors import Fault, Kind
from serving.families.litemedsam.family import DECLARATION
from serving.families.volume_slices import PromptableSlices
from tests.unit.families import fixtures
from tests.unit.families.sliced import COLUMNS, DEPTH, PARTS, ROWS, SLOT_BYTES, Served, objects, scan

MANIFEST = fixtures.manifest("litemedsam", "adaptive", PARTS)


@pytest.fixture(scope="module")
def lite():
    """Seeded, with logits large enough that masks are neither empty nor full."""
    torch.manual_seed(3)
    model = litemedsam.LiteMedSam().eval()
    with torch.no_grad():
        for name, value in model.mask_decoder.named_parameters():
            if value.ndim > 1 and "token" not in name:
                torch.nn.init.xavier_uniform_(value)
        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.normal_()
    # The image itself is its Features here, so that the walk is tested and not the encoder's minutes on a small machine.
    torch.manual_seed(4)
    model.image_encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 256, 8, 4, 2), torch.nn.GELU(), torch.nn.Conv2d(256, 256, 1))
    return model


@torch.inference_mode()
def features_of(lite, tensor):
    return lite.image_encoder(torch.from_numpy(tensor)).numpy()


@torch.inference_mode()
def decoded(lite, features, points, labels):
    sparse = lite.prompt_encoder(torch.from_numpy(np.array(points, np.float32)), torch.from_numpy(np.array(labels)))
    return litemedsam.Decode(lite)(torch.from_numpy(np.array(features)), sparse)[0].numpy()


def upstream(lite, volume, boxes):
    """Label map [slice, row, column]: upstream's loop on (slices, rows, columns), its names and its order."""
    images = volume.transpose(2, 1, 0)
    segs = np.zeros(images.shape, np.uint8)
    height, width = images.shape[1:]
    scale = 256 / max(height, width)
    new_h, new_w = int(height * scale + 0.5), int(width * scale + 0.5)

    def segment(z, box256):
        colour = np.repeat(images[z][:, :, None], 3, axis=-1)
        small = cv2.resize(colour, (new_w, new_h), interpolation=cv2.INTER_AREA)
        small = (small - small.min()) / np.clip(small.max() - small.min(), 1e-8, None)
        padded = np.pad(small, ((0, 256 - new_h), (0, 256 - new_w), (0, 0)))
        features = features_of(lite, padded.astype(np.float32).transpose(2, 0, 1)[None])
        logits = decoded(lite, features, [np.array(box256, np.float32).reshape(2, 2)], [[2, 3]])[0, 0, :new_h, :new_w]
        full = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
        return 1 / (1 + np.exp(-full)) > 0.5

    def box_of(previous, box):
        small = cv2.resize(previous, (new_w, new_h), interpolation=cv2.INTER_AREA)
        small = np.pad(small, ((0, 256 - new_h), (0, 256 - new_w)))
        if small.max() == 0:
            return [int(v * scale) for v in box]
        y, x = np.where(small > 0)
        return [max(0, x.min() - 3), max(0, y.min() - 3), min(256, x.max() + 3), min(256, y.max() + 3)]

    for number, (x0, y0, z0, x1, y1, z1) in enumerate(boxes, start=1):
        mine, box = np.zeros_like(segs), (x0, y0, x1, y1)
        middle = int((z1 - z0) / 2 + z0)
        for z in range(middle, min(z1 + 1, len(images))):
            found = segment(z, [int(v * scale) for v in box] if z == middle else box_of(mine[z - 1], box))
            mine[z, found] = number
        for z in range(middle - 1, max(-1, z0 - 1), -1):
            mine[z, segment(z, box_of(mine[z + 1], box))] = number
        segs[mine > 0] = number
    return segs


BOXES = [(14, 10, 0, 34, 30, 8), (20, 16, 3, 50, 40, 8), (5, 5, 1, 20, 20, 2), (22, 12, 0, 40, 34, 4)]


@pytest.fixture
def served(lite):
    with small_arena(slots=6, slot_bytes=SLOT_BYTES) as arena:
        how = partial(features_of, lite), partial(decoded, lite)
        yield lambda kept_bytes=0: Served(DECLARATION, MANIFEST, arena, kept_bytes, *how)


async def test_one_object_at_a_time_is_upstream_s_loop_exactly(lite, served):
    for box in BOXES:
        found = await served().ask(objects([box]))
        expected = upstream(lite, scan(), [box])
        assert 0 < (expected > 0).mean() < 0.5
        assert np.array_equal(found, expected)


async def test_all_objects_together_are_upstream_s_loop(lite, served):
    mine = served(kept_bytes=3 * SLOT_BYTES)
    found = await mine.ask(objects(BOXES))
    assert (found != upstream(lite, scan(), BOXES)).mean() <= 1e-5
    # Two sweeps of at most nine slices; of those in both, three are kept and the others encoded twice.
    up = {z for x0, y0, z0, x1, y1, z1 in BOXES for z in range(int((z1 - z0) / 2 + z0), z1 + 1)}
    down = {z for x0, y0, z0, x1, y1, z1 in BOXES for z in range(z0, int((z1 - z0) / 2 + z0))}
    assert len(up & down) > 3
    assert mine.calls("image_encoder") == len(up) + len(down) - 3
    assert mine.calls("mask_decoder") == len(up) + len(down)


async def test_each_slice_is_encoded_once_where_there_is_room(served):
    mine = served(kept_bytes=9 * SLOT_BYTES)
    await mine.ask(objects(BOXES))
    assert mine.calls("image_encoder") == DEPTH


async def test_progress_is_told_slice_by_slice(served):
    mine = served()
    await mine.ask(objects([(14, 10, 2, 34, 30, 6)]))
    accepted, *progress = mine.told
    assert accepted == VolumeAccepted(mine.answer.frame, 1, 5, MANIFEST.info())
    assert [(each.done, each.total, each.slice) for each in progress] == [(1, 5, 4), (2, 5, 5), (3, 5, 6), (4, 5, 3), (5, 5, 2)]
    assert all(isinstance(each, VolumeProgress) for each in progress)


async def test_a_key_slice_without_an_extent_is_followed_until_the_mask_ends(served, monkeypatch):
    mine = served()
    key = VolumeObject(ObjectPrompt(box=Box(14, 10, 34, 30)), key=4)
    seen = count(1)
    whole = PromptableSlices.mask

    def ending(self, said):
        mask = whole(self, said)
        return mask if next(seen) < 3 else np.zeros_like(mask)

    monkeypatch.setattr(PromptableSlices, "mask", ending)
    found = await mine.ask((key,))
    # 4 and 5 show it, 6 does not and ends the way up; 3, next to the key slice, does not and ends the way down.
    assert [z for z in range(DEPTH) if found[z].any()] == [4, 5]
    assert mine.calls("mask_decoder") == 4
    assert mine.told[-1].done == mine.told[-1].total == DEPTH


async def test_points_and_masks_on_a_key_slice_are_taken(served):
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[10:30, 14:34] = True
    shown = (
        VolumeObject(KeyMask(mask), key=4, first=3, last=5),
        VolumeObject(ObjectPrompt(box=Box(14, 10, 34, 30), points=(Point(20, 20),)), key=3, first=3, last=5),
    )
    mine = served()
    await mine.ask(shown)
    assert [each.object for each in mine.answer.objects] == [0, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        objects([(14, 10, 2, 34, 30, 9)]),
        objects([(14, 10, 2, 61, 30, 3)]),
        (VolumeObject(ObjectPrompt(box=Box(0, 0, 5, 5)), key=12),),
        (VolumeObject(KeyMask(np.ones((3, 3), bool)), key=1),),
        ClassNames(("liver",), "abdomen"),
    ],
    ids=["absent slices", "outside", "an absent key slice", "a mask of another size", "class names"],
)
async def test_what_does_not_fit_is_refused_before_anything_is_encoded(served, wrong):
    mine = served()
    with pytest.raises(Fault) as caught:
        await mine.ask(wrong)
    assert caught.value.kind is Kind.INVALID
    assert mine.told == []
    assert mine.calls("image_encoder") == 0
