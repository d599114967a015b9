"""SAM ViT-B, L, H and MedSAM: image encoder, mask decoder, mask refiner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from serving.build import samples
from serving.build.catalogue import Entry
from serving.build.nets import medsam
from serving.build.nets.sam_parts import GRID
from serving.build.parts import Parts
from serving.build.recipes import Choices, promptable
from serving.errors import SetupError
from serving.families.medsam.engines import specs as specs
from serving.families.medsam.preprocess import SIDE_PX, normalised

WIDTHS = {768: "sam-vit-b", 1024: "sam-vit-l", 1280: "sam-vit-h"}
"""Channels of the image encoder -> entry (segment_anything `build_sam.py`)."""
IMAGES, WIDE = {768: 2}, 1
"""On which a build is compared, by width: at 1024 pixels PyTorch takes ten seconds an image with a ViT-B on two cores, and more
than a minute with a ViT-H."""


def parts(state: Mapping[str, Tensor], choices: Choices) -> Parts:
    """A SAM-like model's, with the preprocessing that was chosen. Raises SetupError where the checkpoint is another model's."""
    model = medsam.load(state)
    sizes = model.sizes
    if (sizes.image_size, sizes.grid) != (SIDE_PX, GRID):
        raise SetupError(
            f"the checkpoint is of a SAM for {sizes.image_size}-pixel images in {sizes.grid} x {sizes.grid} patches; "
            f"{SIDE_PX} pixels in {GRID} x {GRID} are served"
        )
    size = WIDTHS.get(sizes.width, "")
    if choices.entry.name in WIDTHS.values() and size and size != choices.entry.name:
        raise SetupError(f"the checkpoint is not of {choices.entry.name}: build it as {size}")
    shown = samples.radiology()[: IMAGES.get(sizes.width, WIDE)]
    images = [normalised(samples.squared(pixels, SIDE_PX), choices.preprocessing) for pixels in shown]
    return promptable.parts(model, SIDE_PX, images, {"preprocessing": choices.preprocessing})


def own(entry: Entry) -> dict[str, Any]:
    """Nothing: checkpoint and preprocessing fix all of it."""
    del entry
    return {}
