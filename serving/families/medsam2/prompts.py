"""Prompts of MedSAM2: SAM 2's tokens in the model's square frame, and logits at its own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from serving.domain.prompt import LOGITS_SIDE_PX, ObjectPrompt
from serving.families import prompts
from serving.families.medsam2.preprocess import scale
from serving.families.prompts import BOTTOM_RIGHT, NEGATIVE, PAD, POSITIVE, TOP_LEFT, Group, Token, check

__all__ = ["OBJECTS_A_CALL", "PAD", "Group", "Token", "check", "group", "to_model", "to_travel", "tokens"]

OBJECTS_A_CALL = 4
"""Most objects in one call: attention to seven memories takes tens of GFLOP an object, and a call must end in time."""


def tokens(prompt: ObjectPrompt, size_px: tuple[int, int], side_px: int) -> tuple[Token, ...]:
    """One object's tokens in SAM 2's order: the box's corners, clicks, a pad. `size_px`: (width, height) of its frame."""
    by, box = scale(size_px, side_px), prompt.box
    corners = () if box is None else ((box.x0 * by.x, box.y0 * by.y, TOP_LEFT), (box.x1 * by.x, box.y1 * by.y, BOTTOM_RIGHT))
    clicks = tuple((each.x * by.x, each.y * by.y, POSITIVE if each.positive else NEGATIVE) for each in prompt.points)
    return (*corners, *clicks, (0.0, 0.0, PAD))


def group(objects: Sequence[ObjectPrompt], size_px: tuple[int, int], side_px: int) -> tuple[Group, ...]:
    """The objects of a request as decoder calls. `size_px`: (width, height) of the original frame."""
    spelled = [tokens(item, size_px, side_px) for item in objects]
    return prompts.gather(objects, spelled, OBJECTS_A_CALL, partial(to_model, side=side_px // 4))


def to_model(values: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Logits as they travel, (256, 256), -> as the model has them, (side, side): means of equal tiles. Undoes `to_travel`."""
    each = LOGITS_SIDE_PX // side
    found: npt.NDArray[np.float32] = values.reshape(side, each, side, each).mean(axis=(1, 3), dtype=np.float32)
    return found


def to_travel(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The model's logits (side, side) -> (256, 256), each value a tile."""
    each = LOGITS_SIDE_PX // logits.shape[0]
    return logits.repeat(each, axis=0).repeat(each, axis=1)
