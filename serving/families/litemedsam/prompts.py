"""Prompts of LiteMedSAM: SAM's tokens in the 256 x 256 model frame."""

from __future__ import annotations

from collections.abc import Sequence

from serving.domain.prompt import ObjectPrompt
from serving.families import prompts
from serving.families.litemedsam.preprocess import scale
from serving.families.prompts import BOTTOM_RIGHT, OBJECTS_A_CALL, TOP_LEFT, Group, Token, check

__all__ = ["BOTTOM_RIGHT", "OBJECTS_A_CALL", "TOP_LEFT", "Group", "Token", "check", "group", "tokens"]


def tokens(prompt: ObjectPrompt, size_px: tuple[int, int]) -> tuple[Token, ...]:
    """One object's tokens. `size_px`: (width, height) of the original frame."""
    return prompts.tokens(prompt, scale(size_px))


def group(objects: Sequence[ObjectPrompt], size_px: tuple[int, int], at_most: int = OBJECTS_A_CALL) -> tuple[Group, ...]:
    """The objects of a request as decoder calls, `at_most` objects each. `size_px`: (width, height) of the original frame."""
    return prompts.group(objects, scale(size_px), at_most)
