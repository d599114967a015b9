import math

import numpy as np
import pytest

from serving.domain.image import Frame
from serving.domain.prompt import Box, Labels, MaskLogits, ObjectPrompt, Point
from serving.errors import Fault, Kind

FRAME = Frame((100, 50))


@pytest.mark.parametrize(
    "corners", [(0, 0, 0, 5), (5, 5, 1, 9), (5, 9, 6, 2), (math.nan, 0, 1, 1), (0, 0, math.inf, 1), (-1, 0, 5, 5)]
)
def test_a_wrong_box_cannot_be_built(corners: tuple[float, float, float, float]):
    with pytest.raises(Fault) as caught:
        Box(*corners)
    assert caught.value.kind is Kind.INVALID
    assert caught.value.param == "boxes"


def test_a_box_may_touch_the_border_and_not_pass_it():
    assert Box(0, 0, 100, 50).within(FRAME)
    with pytest.raises(Fault, match="100 x 50"):
        Box(0, 0, 100.5, 50).within(FRAME)


def test_a_point_outside_is_refused():
    with pytest.raises(Fault, match="outside"):
        Point(3, -1)
    with pytest.raises(Fault, match="100 x 50"):
        ObjectPrompt(points=(Point(3, 51),)).within(FRAME)


def test_an_object_needs_something():
    with pytest.raises(Fault, match="box, a point"):
        ObjectPrompt()


@pytest.mark.parametrize("values", [np.zeros((255, 256)), np.full((256, 256), np.nan)])
def test_wrong_logits_cannot_be_built(values: np.ndarray):
    with pytest.raises(Fault, match="logits"):
        MaskLogits(values.astype(np.float32))


@pytest.mark.parametrize(
    ("names", "templates", "negatives"),
    [((), (), ()), (("",), (), ()), (("a", "a"), (), ()), (("a",), ("no braces",), ()), (("a",), ("{}",), ("no {}", "not {}"))],
)
def test_wrong_labels_cannot_be_built(names: tuple[str, ...], templates: tuple[str, ...], negatives: tuple[str, ...]):
    with pytest.raises(Fault) as caught:
        Labels(names, templates, negatives)
    assert caught.value.kind is Kind.INVALID
