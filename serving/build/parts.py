"""The engines of each family as parts to export, and the real samples on which each build is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from serving.build import samples
from serving.build.export import Arrays, Part
from serving.build.nets import clip, litemedsam

DECODED = ("mask", "iou", "masks", "ious")
FEATURES = ("x0", "k0", "v0", "q0")


@dataclass(frozen=True)
class Parts:
    """`parts` and their `samples` by part name; `options`: what the family must know of this checkpoint."""

    parts: dict[str, Part]
    samples: dict[str, list[Arrays]]
    options: dict[str, Any]


def of_litemedsam(state: Mapping[str, Tensor]) -> Parts:
    """Image encoder, mask decoder, mask refiner. The prompt encoder is the first part of the latter two."""
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

    parts = {
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
    return Parts(parts, _litemedsam_samples(model), {"image_size": litemedsam.IMAGE_SIZE})


def _litemedsam_samples(model: litemedsam.LiteMedSam) -> dict[str, list[Arrays]]:
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


def of_clip(state: Mapping[str, Tensor], options: dict[str, Any]) -> Parts:
    """The two towers. `options` is completed with the sizes that the checkpoint fixes."""
    plain = clip.from_hugging_face(dict(state)) if clip.is_hugging_face(state) else state
    pair = clip.load(plain)
    sizes = pair.config
    side, context = sizes.image_size, sizes.context_length
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, sizes.vocab_size - 2, (3, context))
    tokens[:, -1] = sizes.vocab_size - 1
    parts = {
        "image_encoder": Part(
            pair.image_encoder, {"pixels": torch.rand(2, 3, side, side)}, {"pixels": {0: "b"}}, ("embedding",), "openvino"
        ),
        "text_encoder": Part(
            pair.text_encoder, {"tokens": torch.from_numpy(tokens)}, {"tokens": {0: "b", 1: "n"}}, ("embedding",), "onnxruntime"
        ),
    }
    images = [{"pixels": 4 * samples.squared(pixels, side) - 2} for pixels in samples.radiology()]
    # A text tower that takes shorter batches must give for them what it gives for the whole context.
    texts = [{"tokens": tokens}, {"tokens": np.ascontiguousarray(tokens[:, -8:])}]
    found = {
        "image_size": side,
        "context_length": context,
        "embed_dim": sizes.embed_dim,
        "logit_scale": pair.scale,
        **options,
    }
    return Parts(parts, {"image_encoder": images, "text_encoder": texts}, found)
