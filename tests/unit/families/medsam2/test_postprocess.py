import numpy as np
import pytest
import torch

from serving.domain.image import Frame, Image
from serving.families.medsam2.memory import to_bfloat16
from serving.families.medsam2.postprocess import ABSENT, best, binary_mask, filled, shown, steady
from serving.families.medsam2.preprocess import prepare, prepare_mask
from serving.families.medsam2.resample import antialiased


def test_a_stable_first_mask_answers_and_an_unsteady_one_gives_way():
    masks = np.full((4, 8, 8), -5, np.float32)
    masks[0, :4] = 5
    ious = np.array([0.1, 0.2, 0.9, 0.3], np.float32)
    assert steady(masks, ious) == 0
    masks[0, 0, :] = 0.01  # 8 of 32 pixels between the thresholds
    assert steady(masks, ious) == best(ious) == 2
    assert steady(np.full((4, 8, 8), -5, np.float32), ious) == 0


def test_holes_of_eight_pixels_are_filled_and_larger_ones_are_not():
    logits = np.full((20, 20), 3, np.float32)
    logits[2:4, 2:6] = -1  # 8 pixels
    logits[10:13, 10:13] = -1  # 9 pixels
    found = filled(logits)
    assert (found[2:4, 2:6] == np.float32(0.1)).all()
    assert (found[10:13, 10:13] == -1).all()
    assert (filled(np.full((4, 4), 2, np.float32)) == 2).all()


def test_an_absent_object_shows_nothing():
    logits = np.full((4, 4), 3, np.float32)
    assert (shown(logits, 0.0) == ABSENT).all()
    assert shown(logits, 0.1) is logits
    assert not binary_mask(shown(logits, -1), (7, 9)).any()


def test_a_mask_is_stretched_as_pytorch_stretches():
    logits = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(logits)[None, None], (101, 77), mode="bilinear")[0, 0] > 0
    assert (binary_mask(logits, (77, 101)) == wanted.numpy()).mean() >= 0.9999


@pytest.mark.parametrize(("made", "given"), [(32, 128), (128, 100), (128, 517), (7, 7), (3, 1)])
def test_antialiasing_is_pytorchs(made, given):
    values = np.random.default_rng(0).normal(size=(given, given)).astype(np.float32)
    found = antialiased(made, given) @ values @ antialiased(made, given).T
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], (made, made), mode="bilinear", antialias=True, align_corners=False
    )
    assert np.abs(found - wanted[0, 0].numpy()).max() <= 1e-5


def test_memories_are_rounded_as_pytorch_rounds():
    values = np.concatenate([np.random.default_rng(0).normal(size=1000), [0, -0.0, 1.00390625, 1.01171875, 1e-30]])
    values = values.astype(np.float32)
    assert (to_bfloat16(values) == torch.from_numpy(values).bfloat16().float().numpy()).all()


def test_a_picture_is_squashed_and_normalised():
    gray = np.zeros((40, 80), np.uint8)
    gray[:, 40:] = 255
    found = prepare(Image(gray, Frame((80, 40))), 64).tensor
    assert found.shape == (1, 3, 64, 64)
    assert found.dtype == np.float32
    assert found[0, :, 0, 0] == pytest.approx(-np.array([0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], rel=1e-6)
    assert found[0, :, 0, -1] == pytest.approx((1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rel=1e-6)
    colour = prepare(Image(np.repeat(gray[..., None], 3, axis=2), Frame((80, 40))), 64).tensor
    assert (colour == found).all()


def test_a_users_mask_is_squashed_too():
    mask = np.zeros((40, 80), bool)
    mask[10:30, 20:60] = True
    found = prepare_mask(mask, 64)
    assert set(np.unique(found)) == {0, 1}
    assert found[16:48, 16:48].all()
    assert found.sum() == 32 * 32
