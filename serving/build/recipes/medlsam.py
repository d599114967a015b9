"""MedLSAM: the position of a patch, the description of a support point, the refinement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from serving.build import samples
from serving.build.catalogue import Entry
from serving.build.export import Arrays, Part
from serving.build.nets import medlam
from serving.build.nets.medlam import SIDE
from serving.build.parts import Parts
from serving.build.recipes import Choices
from serving.families.medlsam.engines import KERNELS
from serving.families.medlsam.engines import specs as specs

IMAGES = 2
"""On which a build is compared: full width takes seconds a patch on two cores."""


def parts(state: Mapping[str, Tensor], choices: Choices) -> Parts:
    """Three engines. Raises SetupError where the checkpoint is another model's."""
    model = medlam.load(state)
    patches = [_patch(samples.squared(pixels, SIDE)) for pixels in samples.radiology()[:IMAGES]]
    describe = medlam.Describe(model).eval()
    with torch.inference_mode():
        shown = [describe(torch.from_numpy(each))[1:] for each in patches]
    kernels = [{name: _unit(value).numpy() for name, value in zip(KERNELS, each, strict=True)} for each in shown]
    # Each patch is compared with the point of the other: its own centre would win by far.
    refined: list[Arrays] = [{"patch": patch, **kernel} for patch, kernel in zip(patches, reversed(kernels), strict=True)]
    example = torch.from_numpy(patches[0])
    kernel = {name: torch.from_numpy(value) for name, value in kernels[0].items()}
    made = {
        "position": Part(
            medlam.Position(model), {"patch": example.repeat(2, 1, 1, 1, 1)}, {"patch": {0: "b"}}, ("position",), "onnxruntime"
        ),
        "describe": Part(describe, {"patch": example}, {}, ("position", *KERNELS), "onnxruntime"),
        "refine": Part(medlam.Refine(model), {"patch": example, **kernel}, {}, ("similarity",), "onnxruntime"),
    }
    alone: list[Arrays] = [{"patch": patch} for patch in patches]
    together: list[Arrays] = [*alone, {"patch": np.concatenate(patches)}]
    found = {"channels": model.channels, **choices.entry.options, **choices.options}
    return Parts(made, {"position": together, "describe": alone, "refine": refined}, found)


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features, dim=1)


def _patch(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(1, 3, 64, 64) in 0..1 -> (1, 1, 64, 64, 64): the picture on every slice, fading and turning over."""
    plane = picture[0, 0]
    slices = [plane * (1 - z / (2 * SIDE)) if z % 16 < 8 else plane[::-1] * (1 - z / (2 * SIDE)) for z in range(SIDE)]
    return np.asarray(np.stack(slices)[None, None], np.float32)


def own(entry: Entry) -> dict[str, Any]:
    """Nothing: checkpoint and choices fix all of it."""
    del entry
    return {}
