"""Prompts -> the prompt encoder's tokens, and the objects that may share one decoder call.

Objects share a call only where they have equally many tokens: padding an object with further "not a point" tokens would
change its mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.domain.prompt import Box, ObjectPrompt, Point
from serving.errors import Fault, Kind
from serving.families.procedure import Scale

PAD, NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""SAM's token labels; -1 is "not a point"."""

OBJECTS_A_CALL = 16
"""Most objects in one decoder call: its activations take some 30 MB an object."""

Token = tuple[float, float, int]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Group:
    """Objects that share a decoder call.

    `objects`: their indices in the request. `points`: (P, N, 2) float32, (x, y) pixels of the square model frame,
    before SAM's shift of half a pixel. `labels`: (P, N) int64. `logits`: (P, 1, S, S) float32 as the model has them (SAM:
    256), or None.
    """

    objects: tuple[int, ...]
    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32] | None


def check(objects: Sequence[ObjectPrompt]) -> None:
    """Refuse what this model cannot answer. Raises Fault(INVALID)."""
    if any(item.box is None and not item.points for item in objects):
        raise Fault(Kind.INVALID, "previous logits need a box or a point of the same object beside them", param="mask")


def tokens(prompt: ObjectPrompt, scale: Scale) -> tuple[Token, ...]:
    """One object's tokens in SAM's order: clicks, a pad token where there is no box, then the box's corners."""
    clicks = tuple(_click(point, scale) for point in prompt.points)
    if prompt.box is None:
        return (*clicks, (0.0, 0.0, PAD))
    return (*clicks, *_corners(prompt.box, scale))


def group(objects: Sequence[ObjectPrompt], scale: Scale, at_most: int = OBJECTS_A_CALL) -> tuple[Group, ...]:
    """The objects of a request as decoder calls in SAM's tokens, `at_most` objects each."""
    return gather(objects, [tokens(item, scale) for item in objects], at_most)


def gather(
    objects: Sequence[ObjectPrompt],
    spelled: Sequence[tuple[Token, ...]],
    at_most: int,
    to_model: Callable[[Logits], Logits] = np.asarray,
) -> tuple[Group, ...]:
    """Objects and their tokens as decoder calls. `to_model`: logits as they travel, (256, 256), -> as the model has them."""
    kinds = [(len(own), item.logits is not None) for item, own in zip(objects, spelled, strict=True)]
    return tuple(_stack(members, objects, spelled, to_model) for members in alike(kinds, at_most))


def alike(kinds: Sequence[tuple[int, bool]], at_most: int) -> list[list[int]]:
    """Which objects may share a decoder call, at most so many: by (tokens, whether there are earlier logits) of each."""
    found: dict[tuple[int, bool], list[int]] = {}
    for index, kind in enumerate(kinds):
        found.setdefault(kind, []).append(index)
    return [members[start : start + at_most] for members in found.values() for start in range(0, len(members), at_most)]


def _click(point: Point, scale: Scale) -> Token:
    """Clicks keep their fraction: SAM scales them as real numbers."""
    return point.x * scale.x, point.y * scale.y, POSITIVE if point.positive else NEGATIVE


def _corners(box: Box, scale: Scale) -> tuple[Token, Token]:
    x0, y0, x1, y1 = box.x0 * scale.x, box.y0 * scale.y, box.x1 * scale.x, box.y1 * scale.y
    if scale.whole_corners:
        x0, y0, x1, y1 = (float(int(value)) for value in (x0, y0, x1, y1))
    return (x0, y0, TOP_LEFT), (x1, y1, BOTTOM_RIGHT)


def _stack(
    members: Sequence[int],
    objects: Sequence[ObjectPrompt],
    spelled: Sequence[tuple[Token, ...]],
    to_model: Callable[[Logits], Logits],
) -> Group:
    table = np.asarray([spelled[index] for index in members], np.float64)
    earlier = [to_model(said.values) for index in members if (said := objects[index].logits) is not None]
    return Group(
        objects=tuple(members),
        points=table[..., :2].astype(np.float32),
        labels=table[..., 2].astype(np.int64),
        logits=np.stack(earlier)[:, None].astype(np.float32) if earlier else None,
    )
