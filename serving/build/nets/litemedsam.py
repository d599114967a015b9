"""LiteMedSAM: TinyViT image encoder, SAM prompt encoder and mask decoder."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from serving.build.nets.sam import BOTTOM_RIGHT as BOTTOM
from serving.build.nets.sam import TOP_LEFT as TOP
from serving.build.nets.sam_parts import GRID, Click, ClickStock, Decode, Encode, Refine, Sam
from serving.build.nets.tiny_vit import ImageEncoder
from serving.errors import SetupError

__all__ = ["BOTTOM", "GRID", "IMAGE_SIZE", "TOP", "Click", "ClickStock", "Decode", "Encode", "LiteMedSam", "Refine", "load"]

IMAGE_SIZE = 256


class LiteMedSam(Sam):
    """The three parts under the checkpoint's prefixes: 435 tensors."""

    def __init__(self) -> None:
        super().__init__(ImageEncoder(), IMAGE_SIZE)


def load(state: Mapping[str, Tensor]) -> LiteMedSam:
    """The model of a checkpoint, in eval mode. Training wrappers (`model`, `module.`) are taken off.

    Raises SetupError that names the first keys or shapes that differ.
    """
    inner = state.get("model", state)
    if not isinstance(inner, Mapping):
        raise SetupError("the checkpoint is not a state dict of LiteMedSAM")
    plain = {key.removeprefix("module."): value for key, value in inner.items()}
    model = LiteMedSam()
    expected = model.state_dict()
    for key, value in expected.items():
        if key not in plain:
            raise SetupError(f"the checkpoint is not LiteMedSAM's: {key} is missing")
        if plain[key].shape != value.shape:
            have, want = tuple(plain[key].shape), tuple(value.shape)
            raise SetupError(f"the checkpoint is not LiteMedSAM's: {key} has shape {have}, not {want}")
    extra = sorted(set(plain) - set(expected))
    if extra:
        raise SetupError(f"the checkpoint is not LiteMedSAM's: {extra[0]} is not known")
    model.load_state_dict(plain)
    return model.eval()
