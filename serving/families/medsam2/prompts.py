"""Prompts -> the prompt encoder's tokens, and the objects that may share one decoder call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.domain.prompt import LOGITS_SIDE_PX, ObjectPrompt
from serving.errors import Fault, Kind

PAD, NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""SAM's token labels; -1 is "not a point"."""

OBJECTS_A_CALL = 4
"""Most objects in one call: attention to seven memories takes tens of GFLOP an object, and a call must end in time."""

Token = tuple[float, float, int]


@dataclass(frozen=True, eq=False)
class Group:
    """Objects that share a decoder call.

    `objects`: their indices in the request. `points`: (P, N, 2) float32, (x, y) pixels of the model frame, before SAM's shift
    of half a pixel. `labels`: (P, N) int64. `logits`: (P, 1, S, S) float32, or None.
    """

    objects: tuple[int, ...]
    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32] | None


def check(objects: Sequence[ObjectPrompt]) -> None:
    """Refuse what this model cannot answer. Raises Fault(INVALID)."""
    if any(item.box is None and not item.points for item in objects):
        raise Fault(Kind.INVALID, "previous logits need a box or a point of the same object beside them", param="mask")


def tokens(prompt: ObjectPrompt, size_px: tuple[int, int], side_px: int) -> tuple[Token, ...]:
    """One object's tokens in SAM 2's order: the box's corners, clicks, a pad. `size_px`: (width, height) of the original frame.

    The frame is squashed to the model's square; coordinates keep their fraction (`sam2_video_predictor.py`).
    """
    along, down = side_px / size_px[0], side_px / size_px[1]
    box = prompt.box
    corners = () if box is None else ((box.x0 * along, box.y0 * down, TOP_LEFT), (box.x1 * along, box.y1 * down, BOTTOM_RIGHT))
    clicks = tuple((each.x * along, each.y * down, POSITIVE if each.positive else NEGATIVE) for each in prompt.points)
    return (*corners, *clicks, (0.0, 0.0, PAD))


def group(objects: Sequence[ObjectPrompt], size_px: tuple[int, int], side_px: int) -> tuple[Group, ...]:
    """The objects of a request as decoder calls. Those of a call have equally many tokens: padding would change the result."""
    alike: dict[tuple[int, bool], list[int]] = {}
    spelled = [tokens(item, size_px, side_px) for item in objects]
    for index, item in enumerate(objects):
        alike.setdefault((len(spelled[index]), item.logits is not None), []).append(index)
    return tuple(
        _stack(members[start : start + OBJECTS_A_CALL], objects, spelled, side_px // 4)
        for members in alike.values()
        for start in range(0, len(members), OBJECTS_A_CALL)
    )


def to_model(values: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Logits as they travel, (256, 256), -> as the model has them, (side, side): means of equal tiles. Undoes `to_travel`."""
    each = LOGITS_SIDE_PX // side
    found: npt.NDArray[np.float32] = values.reshape(side, each, side, each).mean(axis=(1, 3), dtype=np.float32)
    return found


def to_travel(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The model's logits (side, side) -> (256, 256), each value a tile."""
    each = LOGITS_SIDE_PX // logits.shape[0]
    return logits.repeat(each, axis=0).repeat(each, axis=1)


def _stack(members: Sequence[int], objects: Sequence[ObjectPrompt], spelled: Sequence[tuple[Token, ...]], side: int) -> Group:
    table = np.asarray([spelled[index] for index in members], np.float64)
    earlier = [prompt.logits.values for prompt in (objects[index] for index in members) if prompt.logits is not None]
    return Group(
        objects=tuple(members),
        points=table[..., :2].astype(np.float32),
        labels=table[..., 2].astype(np.int64),
        logits=np.stack([to_model(each, side) for each in earlier])[:, None].astype(np.float32) if earlier else None,
    )
