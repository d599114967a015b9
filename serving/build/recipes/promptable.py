"""The parts of a SAM-like model, whatever its image encoder: image encoder, mask decoder, mask refiner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from serving.build.export import Arrays, Part
from serving.build.nets import sam_parts
from serving.build.nets.sam import BOTTOM_RIGHT, TOP_LEFT
from serving.build.nets.sam_parts import Sam
from serving.build.parts import Parts

DECODED = ("mask", "iou", "masks", "ious")
FEATURES = ("x0", "k0", "v0", "q0")
BOXES = np.array([[[60, 60], [190, 190]], [[100, 80], [140, 150]]], np.float32) / 256
"""Two objects of each sample, corners as parts of the model frame."""
EARLIER = np.array([[1, 0]], np.float32)
"""The refiner is compared with an earlier answer and without."""


def parts(
    model: Sam,
    image_size: int,
    images: Sequence[npt.NDArray[np.float32]],
    options: dict[str, Any],
    encoder: torch.nn.Module | None = None,
) -> Parts:
    """The prompt encoder is the first part of both decoding graphs.

    `images`: (1, 3, image_size, image_size) as the encoder is fed them; engines are compared with PyTorch on these.
    `encoder`: the image encoder as it is exported, where it is a rewritten form of the model's own.
    """
    given = sam_parts.example_inputs(image_size)
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
        "image_encoder": part(
            sam_parts.Encode(model, encoder),
            ("image",),
            {"image": {0: "b"}},
            FEATURES,
            "openvino",
            sam_parts.Encode(model) if encoder else None,
        ),
        "mask_decoder": part(
            sam_parts.Click(model), (*FEATURES, "points", "labels"), prompts, DECODED, "openvino", sam_parts.ClickStock(model)
        ),
        "mask_refiner": part(
            sam_parts.Refine(model),
            ("x0", "points", "labels", "logits", "earlier"),
            {**prompts, "logits": {1: "p"}, "earlier": {1: "p"}},
            DECODED,
            "onnxruntime",
        ),
    }
    samples, features = _samples(model, image_size, images)
    return Parts(made, samples, {"image_size": image_size, **options}, {"image_encoder": features})


def _samples(
    model: Sam, image_size: int, images: Sequence[npt.NDArray[np.float32]]
) -> tuple[dict[str, list[Arrays]], list[Arrays]]:
    """The samples of each part, and the Features that PyTorch made of the images."""
    prompt = {"points": BOXES[None] * image_size, "labels": np.array([[[TOP_LEFT, BOTTOM_RIGHT]] * 2])}
    found: dict[str, list[Arrays]] = {name: [] for name in ("image_encoder", "mask_decoder", "mask_refiner")}
    encoded: list[Arrays] = []
    encode, click = sam_parts.Encode(model), sam_parts.ClickStock(model)
    with torch.inference_mode():
        for image in images:
            made = dict(zip(FEATURES, encode(torch.from_numpy(image)), strict=True))
            logits = click(*made.values(), *(torch.from_numpy(value) for value in prompt.values()))[0]
            features = {name: value.numpy() for name, value in made.items()}
            encoded.append(features)
            found["image_encoder"].append({"image": image})
            found["mask_decoder"].append({**features, **prompt})
            found["mask_refiner"].append({"x0": features["x0"], **prompt, "logits": logits.numpy(), "earlier": EARLIER})
    return found, encoded
