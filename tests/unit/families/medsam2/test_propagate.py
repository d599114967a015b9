"""A walk in both directions against Hugging Face's Sam2VideoModel, which follows sam2's own bookkeeping of memories."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sam2_pair import SIDE, as_sam2_asks, fakes, hugging_face
from transformers import Sam2VideoInferenceSession

from serving.build.nets import medsam2_layout
from serving.domain.prompt import Box, ObjectPrompt, Point
from serving.domain.request import Deadline
from serving.families.medsam2 import postprocess
from serving.families.medsam2.preprocess import prepare_mask
from serving.families.medsam2.propagate import Object, Propagation

SLICES = 10
SIZE_PX = (SIDE, SIDE)
BOX = Box(20, 30, 90, 100)
FLIPS = 1e-3
"""Share of pixels that may differ: memories are rounded to bfloat16, where a float32's last bit may decide."""


@pytest.fixture(scope="module")
def theirs():
    return hugging_face()


@pytest.fixture(scope="module")
def engines(theirs):
    return fakes(medsam2_layout.load(theirs.state_dict(), SIDE))


@pytest.fixture(scope="module")
def volume():
    """(slices, 3, side, side): each slice a little other than the one before."""
    drawn = torch.Generator().manual_seed(5)
    steps = torch.randn(SLICES, 3, SIDE, SIDE, generator=drawn) * 0.3
    return torch.randn(1, 3, SIDE, SIDE, generator=drawn) + steps.cumsum(0)


@pytest.fixture(autouse=True)
def no_holes(monkeypatch):
    """Theirs fills no holes; `test_postprocess` shows that ours does."""
    monkeypatch.setattr(postprocess, "HOLE_PX", 0)


def walked(engines, volume, objects):
    """object -> {slice: logits}, up from the key slices, then down."""

    async def go():
        found = {number: {} for number in range(len(objects))}
        slots = {}
        walk = Propagation(objects, engines, SIZE_PX, SIDE, Deadline.after(600))

        async def visit(index, numbers):
            if index not in slots:
                slots[index] = SimpleNamespace(index=index, generation=1)
                image = volume[index][None].numpy()
                await engines["image_encoder"].infer({"image": image}, Deadline.after(600), slot=slots[index])
            for number, logits in zip(numbers, await walk.visit(index, slots[index], numbers), strict=True):
                found[number][index] = logits

        for index in range(SLICES):
            if up := [n for n, item in enumerate(objects) if item.key <= index]:
                await visit(index, up)
        for index in range(SLICES - 1, -1, -1):
            if down := [n for n, item in enumerate(objects) if item.key > index]:
                await visit(index, down)
        return found

    return asyncio.run(go())


@torch.inference_mode()
def expected(theirs, volume, key, *, points=None, labels=None, mask=None):
    """{slice: logits} of one object alone: two passes, each from a fresh start, as `medsam2_infer_3D_CT.py` makes them."""
    found = {}
    for reverse in (False, True):
        session = Sam2VideoInferenceSession(video=volume, video_height=SIDE, video_width=SIDE, dtype=torch.float32)
        number = session.obj_id_to_idx(1)
        if mask is None:
            given = {"point_coords": torch.tensor(points)[None, None], "point_labels": torch.tensor(labels)[None, None]}
            session.add_point_inputs(number, key, given)
        else:
            session.add_mask_inputs(number, key, torch.from_numpy(mask)[None, None])
        session.obj_with_new_inputs.append(1)
        theirs(session, frame_idx=key)
        for out in theirs.propagate_in_video_iterator(session, start_frame_idx=key, reverse=reverse):
            found[out.frame_idx] = out.pred_masks[0, 0].numpy()
    return found


def agree(found, wanted):
    assert sorted(found) == sorted(wanted) == list(range(SLICES))
    flips = np.mean([((found[z] > 0) != (wanted[z] > 0)).mean() for z in found])
    assert flips <= FLIPS
    scale = max(np.abs(each).max() for each in wanted.values())
    assert max(np.abs(found[z] - wanted[z]).max() for z in found) <= 1e-2 * scale


def test_a_box_is_followed_as_they_follow_it(theirs, engines, volume):
    found = walked(engines, volume, [Object(ObjectPrompt(box=BOX), 4, SLICES)])[0]
    wanted = expected(theirs, volume, 4, points=[[20.0, 30.0], [90.0, 100.0]], labels=[2, 3])
    scale = np.abs(wanted[4]).max()
    assert np.abs(found[4] - wanted[4]).max() <= 1e-4 * scale
    agree(found, wanted)


def test_a_click_is_followed_by_its_best_candidate(theirs, engines, volume):
    found = walked(engines, volume, [Object(ObjectPrompt(points=(Point(50, 60),)), 0, SLICES)])[0]
    agree(found, expected(theirs, volume, 0, points=[[50.0, 60.0]], labels=[1]))


def test_a_mask_is_followed_as_it_is(theirs, engines, volume, monkeypatch):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[32:96, 40:80] = True
    # sam2 makes the memory of the mask at a quarter of its side and back; theirs takes it as sent.
    as_sam2_asks(theirs, monkeypatch)
    use = theirs._use_mask_as_output

    def as_sam2(*given):
        made = use(*given)
        made.high_res_masks = torch.nn.functional.interpolate(made.pred_masks, (SIDE, SIDE), mode="bilinear")
        return made

    monkeypatch.setattr(theirs, "_use_mask_as_output", as_sam2)
    found = walked(engines, volume, [Object(mask, 6, SLICES)])[0]
    wanted = expected(theirs, volume, 6, mask=prepare_mask(mask, SIDE))
    agree(found, wanted)
    assert ((found[6] > 0) == mask[2::4, 2::4]).mean() > 0.99


def test_objects_together_are_as_alone_and_each_slice_is_encoded_once(engines, volume):
    objects = [
        Object(ObjectPrompt(box=BOX), 2, SLICES),
        Object(ObjectPrompt(box=Box(60, 10, 120, 64)), 2, SLICES),
        Object(ObjectPrompt(points=(Point(64, 64), Point(20, 20, positive=False))), 7, SLICES),
    ]
    before = engines["image_encoder"].calls
    together = walked(engines, volume, objects)
    assert engines["image_encoder"].calls - before == SLICES
    for number, item in enumerate(objects):
        agree(together[number], walked(engines, volume, [item])[0])


def test_two_slices_are_enough(theirs, engines, volume):
    short = volume[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "SLICES", 2)
        found = walked(engines, short, [Object(ObjectPrompt(box=BOX), 1, 2)])[0]
        agree(found, expected(theirs, short, 1, points=[[20.0, 30.0], [90.0, 100.0]], labels=[2, 3]))
