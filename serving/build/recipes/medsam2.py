"""MedSAM2: image encoder, four ways to a mask, memory encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from serving.build import samples
from serving.build.catalogue import Entry
from serving.build.export import Arrays, Part
from serving.build.nets import medsam2_layout, medsam2_parts
from serving.build.nets.medsam2 import MedSam2
from serving.build.nets.sam import BOTTOM_RIGHT, PAD, TOP_LEFT
from serving.build.parts import Parts
from serving.build.recipes import Choices
from serving.engines.engine import EngineSpec
from serving.families.medsam2.engines import IMAGE_SIZE
from serving.families.medsam2.engines import specs as specs
from serving.manifest import Manifest

EXPORTED: Mapping[str, Callable[[MedSam2], nn.Module]] = {
    "image_encoder": medsam2_parts.Encode,
    "mask_decoder": medsam2_parts.Click,
    "mask_refiner": medsam2_parts.Refine,
    "mask_pointer": medsam2_parts.Point,
    "mask_tracker": medsam2_parts.Track,
    "memory_encoder": medsam2_parts.Remember,
}
"""part -> its module."""

BACKENDS = {"image_encoder": "openvino", "mask_decoder": "openvino"}
"""The others run on ONNX Runtime: their numbers of memories and objects change from call to call."""

AXES = {
    "points": {1: "p", 2: "n"},
    "labels": {1: "p", 2: "n"},
    "logits": {1: "p"},
    "mask": {1: "p"},
    "memories": {1: "p", 2: "m"},
    "places": {1: "p", 2: "m"},
    "pointers_given": {1: "p", 2: "k"},
    "ages": {1: "p", 2: "k"},
    "prompted": {1: "p"},
    "score": {1: "p"},
}
"""Input -> the axes that vary."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def parts(state: Mapping[str, Tensor], choices: Choices) -> Parts:
    """The six parts of a checkpoint. Raises SetupError where it is another model's."""
    del choices  # one preprocessing, one size
    return of_model(medsam2_layout.load(state, IMAGE_SIZE))


def of_model(model: MedSam2) -> Parts:
    """The six parts of a model, with real images as samples."""
    side = model.sizes.image_size
    given = specs(_draft(side))
    modules = {part: EXPORTED[part](model).eval() for part in given}
    found = _samples(modules, given, side)
    made = {part: _part(modules[part], spec, found[part][0], BACKENDS.get(part, "onnxruntime")) for part, spec in given.items()}
    return Parts(made, found, {"image_size": side})


def own(entry: Entry) -> dict[str, Any]:
    """Nothing: the checkpoint fixes all of it."""
    del entry
    return {}


def _draft(side: int) -> Manifest:
    options = {"image_size": side}
    return Manifest(model="", family="medsam2", pool="", digest="", source="", licence="", engines={}, options=options)


def _part(module: nn.Module, spec: EngineSpec, sample: Arrays, backend: str) -> Part:
    """Axes of one element in an example would be taken for constants: there are two objects, memories and pointers of each.

    Images come one by one: an encoder of a fixed size is built and run faster.
    """
    example = {name: torch.from_numpy(value) for name, value in sample.items()}
    axes = {name: AXES[name] for name in example if name in AXES}
    return Part(module, example, axes, tuple(each.name for each in (*spec.writes, *spec.outputs)), backend)


def _samples(modules: Mapping[str, nn.Module], given: Mapping[str, EngineSpec], side: int) -> dict[str, list[Arrays]]:
    """On each image two boxes; then the next slice with what they left, asked with two and with three memories."""
    found: dict[str, list[Arrays]] = {part: [] for part in given}

    def run(part: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        spec = given[part]
        names = [each.name for each in (*spec.reads, *spec.inputs)]
        found[part].append({name: values[name].numpy() for name in names})
        made = modules[part](*(values[name] for name in names))
        outputs = (each.name for each in (*spec.writes, *spec.outputs))
        return dict(zip(outputs, made if isinstance(made, tuple) else (made,), strict=True))

    corners = torch.tensor([[[0.2, 0.2], [0.7, 0.7]], [[0.4, 0.3], [0.6, 0.6]]]) * side
    points = torch.cat([corners, torch.zeros(2, 1, 2)], dim=1).unsqueeze(0)
    labels = torch.tensor([[[TOP_LEFT, BOTTOM_RIGHT, PAD]] * 2])
    with torch.inference_mode():
        for pixels in samples.radiology():
            held = run("image_encoder", {"image": _normalised(samples.squared(pixels, side))})
            out = run("mask_decoder", {**held, "points": points, "labels": labels})
            logits = out["masks"][:, :, :1]
            run("mask_refiner", {**held, "points": points, "labels": labels, "logits": logits})
            full = nn.functional.interpolate(logits[0], (side, side))
            run("mask_pointer", {**held, "mask": (full > 0).float().unsqueeze(0)})
            asked = _remembered(run, held, out, logits)
            for count in (2, 3):
                run("mask_tracker", {**held, **{name: value[:, :, :count] for name, value in asked.items()}})
    return found


def _remembered(run: Any, held: Mapping[str, Tensor], out: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
    """Three memories and pointers of two objects: a prompted slice and two that were followed."""
    memories: list[Tensor] = []
    for prompted in (1.0, 0.0, 0.0):
        flag = torch.full((1, 2, 1), prompted)
        given = {**held, "logits": logits / (1 + len(memories)), "prompted": flag, "score": out["score"]}
        memories.append(run("memory_encoder", given)["memory"])
    return {
        "memories": torch.stack(memories, dim=2),
        "places": torch.tensor([[[0, 2, 1]] * 2]),
        "pointers_given": out["pointers"][:, :, :3],
        "ages": torch.tensor([[[3.0, 1.0, 2.0]] * 2]) / 15,
    }


def _normalised(image: Any) -> Tensor:
    mean, std = (np.array(each, np.float32).reshape(1, 3, 1, 1) for each in (MEAN, STD))
    return torch.from_numpy((image - mean) / std)
