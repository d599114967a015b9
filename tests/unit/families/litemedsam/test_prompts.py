import numpy as np
import pytest

from serving.domain.prompt import Box, MaskLogits, ObjectPrompt, Point
from serving.errors import Fault, Kind
from serving.families import prompts
from serving.families.litemedsam.preprocess import scale
from serving.families.prompts import check

SIZE = (512, 512)
BOX = Box(10, 21, 101, 203)
CLICK, AWAY = Point(11, 31), Point(200, 100, positive=False)
EARLIER = MaskLogits(np.full((256, 256), 2, np.float32))


def tokens(prompt, size_px):
    return prompts.tokens(prompt, scale(size_px))


def group(objects, size_px, **more):
    return prompts.group(objects, scale(size_px), **more)


def test_a_box_is_two_corners_cut_to_whole_pixels():
    assert tokens(ObjectPrompt(box=BOX), SIZE) == ((5.0, 10.0, 2), (50.0, 101.0, 3))


@pytest.mark.parametrize("side", [300, 333, 512, 700, 1000])
def test_corners_equal_the_published_ratio_first(side):
    for value in range(1, side):
        corner = tokens(ObjectPrompt(box=Box(0, 0, value, side)), (side, side))[1]
        assert corner[0] == int(value * (256 / side))


def test_the_longest_side_scales_both_axes():
    assert tokens(ObjectPrompt(box=Box(0, 0, 100, 50)), (200, 1000)) == ((0.0, 0.0, 2), (25.0, 12.0, 3))


def test_clicks_keep_their_fraction_and_a_pad_token_stands_for_the_missing_box():
    assert tokens(ObjectPrompt(points=(CLICK, AWAY)), SIZE) == ((5.5, 15.5, 1), (100.0, 50.0, 0), (0.0, 0.0, -1))


def test_with_a_box_clicks_come_first_and_nothing_is_padded():
    assert [label for *_, label in tokens(ObjectPrompt(box=BOX, points=(CLICK, AWAY)), SIZE)] == [1, 0, 2, 3]


def test_objects_are_grouped_by_tokens_and_by_logits():
    objects = (
        ObjectPrompt(box=BOX),
        ObjectPrompt(points=(CLICK,)),
        ObjectPrompt(points=(CLICK, AWAY)),
        ObjectPrompt(box=BOX, logits=EARLIER),
        ObjectPrompt(box=BOX, points=(CLICK,)),
        ObjectPrompt(box=BOX),
    )
    groups = group(objects, SIZE)
    assert [item.objects for item in groups] == [(0, 1, 5), (2, 4), (3,)]
    assert [item.points.shape for item in groups] == [(3, 2, 2), (2, 3, 2), (1, 2, 2)]
    assert [item.labels.tolist() for item in groups] == [[[2, 3], [1, -1], [2, 3]], [[1, 0, -1], [1, 2, 3]], [[2, 3]]]
    assert {(item.points.dtype, item.labels.dtype) for item in groups} == {(np.dtype(np.float32), np.dtype(np.int64))}
    assert [item.logits is None for item in groups] == [True, True, False]
    assert groups[2].logits.shape == (1, 1, 256, 256)
    assert (groups[2].logits == 2).all()


def test_logits_stay_with_their_objects():
    objects = [ObjectPrompt(box=BOX, logits=MaskLogits(np.full((256, 256), n, np.float32))) for n in range(3)]
    (only,) = group(objects, SIZE)
    assert only.logits[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_a_large_group_is_split():
    groups = group([ObjectPrompt(box=BOX)] * 7, SIZE, at_most=3)
    assert [item.objects for item in groups] == [(0, 1, 2), (3, 4, 5), (6,)]


def test_logits_alone_are_refused():
    with pytest.raises(Fault) as raised:
        check((ObjectPrompt(box=BOX), ObjectPrompt(logits=EARLIER)))
    assert (raised.value.kind, raised.value.param) == (Kind.INVALID, "mask")
    check((ObjectPrompt(box=BOX, logits=EARLIER), ObjectPrompt(points=(CLICK,), logits=EARLIER)))
