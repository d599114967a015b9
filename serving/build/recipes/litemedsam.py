"""LiteMedSAM: image encoder, mask decoder, mask refiner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from serving.build import precision, samples
from serving.build.catalogue import Entry
from serving.build.export import Arrays, Part
from serving.build.nets import litemedsam
from serving.build.parts import Parts
from serving.build.precision import Choice
from serving.build.recipes import Choices
from serving.build.weights import Say
from serving.families.litemedsam.engines import specs as specs

DECODED = ("mask", "iou", "masks", "ious")
FEATURES = ("x0", "k0", "v0", "q0")


def parts(state: Mapping[str, Tensor], choices: Choices) -> Parts:
    """Image encoder, mask decoder, mask refiner. The prompt encoder is the first part of the latter two."""
    del choices  # one preprocessing, one size
    model = litemedsam.load(state)
    given = litemedsam.example_inputs()
    prompts = {"points": {1: "p", 2: "n"}, "labels": {1: "p", 2: "n"}}

    def part(
        module: torch.nn.Module,
        inputs: tuple[str, ...],
        axes: dict[str, dict[int, str]],
        outputs: tuple[str, ...],
        backend: str,
        reference: torch.nn.Module | None = None,
    ) -> Part:
        return Part(module, {name: given[name] for name in inputs}, axes, outputs, backend, reference)

    made = {
        "image_encoder": part(litemedsam.Encode(model), ("image",), {"image": {0: "b"}}, FEATURES, "openvino"),
        "mask_decoder": part(
            litemedsam.Click(model), (*FEATURES, "points", "labels"), prompts, DECODED, "openvino", litemedsam.ClickStock(model)
        ),
        "mask_refiner": part(
            litemedsam.Refine(model),
            ("x0", "points", "labels", "logits"),
            {**prompts, "logits": {1: "p"}},
            DECODED,
            "onnxruntime",
        ),
    }
    return Parts(made, _samples(model), {"image_size": litemedsam.IMAGE_SIZE})


def _samples(model: litemedsam.LiteMedSam) -> dict[str, list[Arrays]]:
    images = [samples.squared(pixels, litemedsam.IMAGE_SIZE) for pixels in samples.radiology()]
    points = np.array([[[[60, 60], [190, 190]], [[100, 80], [140, 150]]]], np.float32)
    labels = np.array([[[litemedsam.TOP, litemedsam.BOTTOM]] * 2])
    found: dict[str, list[Arrays]] = {name: [] for name in ("image_encoder", "mask_decoder", "mask_refiner")}
    encode, click = litemedsam.Encode(model), litemedsam.ClickStock(model)
    prompt = {"points": points, "labels": labels}
    with torch.inference_mode():
        for image in images:
            made = dict(zip(FEATURES, encode(torch.from_numpy(image)), strict=True))
            logits = click(*made.values(), *(torch.from_numpy(value) for value in prompt.values()))[0]
            features = {name: value.numpy() for name, value in made.items()}
            found["image_encoder"].append({"image": image})
            found["mask_decoder"].append({**features, **prompt})
            found["mask_refiner"].append({"x0": features["x0"], **prompt, "logits": logits.numpy()})
    return found


def own(entry: Entry) -> dict[str, Any]:
    """Nothing: the checkpoint fixes all of it."""
    del entry
    return {}


def gate(folders: Mapping[str, Path], *, options: Mapping[str, Any], entry: Entry, say: Say) -> dict[str, Choice]:
    """Masks of 120 boxes on real images against float32's."""
    del options, entry
    encoder, decoder = precision.choose_masks(folders["image_encoder"], folders["mask_decoder"], say)
    return {"image_encoder": encoder, "mask_decoder": decoder}
