"""LiteMedSAM: image encoder, mask decoder, mask refiner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from serving.build import precision, samples
from serving.build.catalogue import Entry
from serving.build.nets import litemedsam
from serving.build.nets.tiny_vit_folded import FoldedEncoder
from serving.build.parts import Parts
from serving.build.precision import Choice
from serving.build.recipes import Choices, promptable
from serving.build.weights import Say
from serving.families.litemedsam.engines import specs as specs


def parts(state: Mapping[str, Tensor], choices: Choices) -> Parts:
    """A SAM-like model's. Raises SetupError where the checkpoint is another model's."""
    del choices  # one preprocessing, one size
    side = litemedsam.IMAGE_SIZE
    images = [samples.squared(pixels, side) for pixels in samples.radiology()]
    model = litemedsam.load(state)
    return promptable.parts(model, side, images, {}, FoldedEncoder(model.image_encoder))


def own(entry: Entry) -> dict[str, Any]:
    """Nothing: the checkpoint fixes all of it."""
    del entry
    return {}


def gate(folders: Mapping[str, Path], *, options: Mapping[str, Any], entry: Entry, say: Say) -> dict[str, Choice]:
    """Masks of 120 boxes on real images against float32's."""
    del options, entry
    encoder, decoder = precision.choose_masks(folders["image_encoder"], folders["mask_decoder"], say)
    return {"image_encoder": encoder, "mask_decoder": decoder}
