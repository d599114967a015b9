"""Prompts on the wire -> ObjectPrompt and Labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from serving.domain.prompt import LOGITS_SIDE_PX, Box, Labels, MaskLogits, ObjectPrompt, Point
from serving.edge import limits
from serving.edge.fields import Fields, binary, invalid, number, sequence
from serving.errors import Fault, Kind
from serving.settings import LimitSettings

OBJECT_FIELDS = ("box", "points", "mask")
_SAMPLES = LOGITS_SIDE_PX * LOGITS_SIDE_PX


def objects(fields: Fields, most: LimitSettings) -> tuple[ObjectPrompt, ...]:
    """`boxes` (one object each), `points` and `mask` (of one object), `objects` (the general form). Raises Fault.

    `points` and `mask` beside exactly one box say more about that box's object, as in SAM's own predictor; beside several
    boxes it would be open which is meant, and that is refused.
    """
    boxes, general = fields.items("boxes"), fields.items("objects")
    limits.count(len(boxes), most.max_objects, "boxes")
    limits.count(len(general), most.max_objects, "objects")
    limits.count(len(boxes) + len(general), most.max_objects, "objects")
    rest = {name: fields.get(name) for name in ("points", "mask") if fields.get(name) not in (None, [], ())}
    if rest and len(boxes) > 1:
        raise Fault(Kind.INVALID, "points or mask beside several boxes: say whose they are with objects", param="objects")
    found: list[ObjectPrompt] = []
    if rest:
        first = {"box": boxes[0]} if boxes else {}
        found.append(one({**first, **rest}, "", most))
    else:
        found.extend(ObjectPrompt(box=box(each, f"boxes[{n}]")) for n, each in enumerate(boxes))
    found.extend(one(each, f"objects[{n}]", most) for n, each in enumerate(general))
    return tuple(found)


def one(value: object, where: str, most: LimitSettings) -> ObjectPrompt:
    """One object: {box, points, mask}. Raises Fault."""
    fields = Fields(value, where, OBJECT_FIELDS)
    given = fields.items("points")
    limits.count(len(given), most.max_points, fields.param("points"))
    return ObjectPrompt(
        box(fields.get("box"), fields.param("box")) if fields.has("box") else None,
        tuple(point(each, f"{fields.param('points')}[{n}]") for n, each in enumerate(given)),
        MaskLogits(logits(fields.get("mask"), fields.param("mask"))) if fields.has("mask") else None,
    )


def box(value: object, param: str) -> Box:
    """[x0, y0, x1, y1] in pixels. Raises Fault."""
    right = "must be four numbers [x0, y0, x1, y1] in pixels"
    given = sequence(value, param, right)
    if len(given) != 4:
        raise invalid(param, right)
    return Box(*(number(each, param) for each in given))


def point(value: object, param: str) -> Point:
    """[x, y] or [x, y, label] in pixels; label 1 is foreground, 0 background. Raises Fault."""
    right = "must be [x, y] or [x, y, label] with label 1 (foreground) or 0 (background)"
    given = sequence(value, param, right)
    if len(given) not in (2, 3) or (len(given) == 3 and given[2] not in (0, 1)):
        raise invalid(param, right)
    return Point(number(given[0], param), number(given[1], param), len(given) == 2 or bool(given[2]))


def logits(value: object, param: str) -> npt.NDArray[np.float32]:
    """256 x 256 little-endian float16 or float32, told by their length -> (256, 256) float32. Raises Fault."""
    data = binary(value, param)
    if len(data) not in (2 * _SAMPLES, 4 * _SAMPLES):
        raise invalid(param, "must be the 256 x 256 logits of an earlier answer, float16 or float32")
    dtype = "<f2" if len(data) == 2 * _SAMPLES else "<f4"
    return np.frombuffer(data, dtype).reshape(LOGITS_SIDE_PX, LOGITS_SIDE_PX).astype(np.float32)


def labels(fields: Fields, most: LimitSettings) -> Labels:
    """`labels`, `templates`, `negative_templates`. Raises Fault."""
    names: dict[str, Any] = {
        name: limits.texts(fields.items(name), most, name) for name in ("labels", "templates", "negative_templates")
    }
    return Labels(names["labels"], names["templates"], names["negative_templates"])
