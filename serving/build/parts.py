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


@dataclass(frozen=True)
class Parts:
    """`parts` and their `samples` by part name; `options`: what the family must know of this checkpoint."""

    parts: dict[str, Part]
    samples: dict[str, list[Arrays]]
    options: dict[str, Any]


def of_litemedsam(state: Mapping[str, Tensor]) -> Parts:
    """Image encoder, prompt encoder, mask decoder, mask refiner."""
    model = litemedsam.load(state)
    given = litemedsam.example_inputs()

    def part(
        module: torch.nn.Module,
        inputs: tuple[str, ...],
        axes: dict[str, dict[int, str]],
        outputs: tuple[str, ...],
        backend: str,
        reference: torch.nn.Module | None = None,
    ) -> Part:
        return Part(module, {name: given[name] for name in inputs}, axes, outputs, backend, reference)

    prompts = {"points": {0: "p", 1: "n"}, "labels": {0: "p", 1: "n"}}
    sparse = {"sparse": {0: "p", 1: "n"}}
    stock = litemedsam.Decode(model)
    parts = {
        "image_encoder": part(model.image_encoder, ("image",), {"image": {0: "b"}}, ("features",), "openvino"),
        "prompt_encoder": part(model.prompt_encoder, ("points", "labels"), prompts, ("sparse",), "onnxruntime"),
        "mask_decoder": part(litemedsam.folded(model), ("features", "sparse"), sparse, DECODED, "openvino", stock),
        "mask_refiner": part(
            litemedsam.Refine(model), ("features", "sparse", "logits"), {**sparse, "logits": {0: "p"}}, DECODED, "onnxruntime"
        ),
    }
    return Parts(parts, _litemedsam_samples(model), {"image_size": litemedsam.IMAGE_SIZE})


def _litemedsam_samples(model: litemedsam.LiteMedSam) -> dict[str, list[Arrays]]:
    images = [samples.squared(pixels, litemedsam.IMAGE_SIZE) for pixels in samples.radiology()]
    boxes = np.array([[[60, 60], [190, 190]], [[100, 80], [140, 150]]], np.float32)
    labels = np.array([[litemedsam.TOP, litemedsam.BOTTOM]] * 2)
    found: dict[str, list[Arrays]] = {name: [] for name in ("image_encoder", "prompt_encoder", "mask_decoder", "mask_refiner")}
    decode = litemedsam.Decode(model)
    with torch.inference_mode():
        sparse = model.prompt_encoder(torch.from_numpy(boxes), torch.from_numpy(labels))
        found["prompt_encoder"].append({"points": boxes, "labels": labels})
        for image in images:
            features = model.image_encoder(torch.from_numpy(image))
            logits = decode(features, sparse)[0]
            shared = {"features": features.numpy(), "sparse": sparse.numpy()}
            found["image_encoder"].append({"image": image})
            found["mask_decoder"].append(shared)
            found["mask_refiner"].append({**shared, "logits": logits.numpy()})
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
