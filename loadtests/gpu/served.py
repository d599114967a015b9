"""What is put behind Triton: networks by name, their tensors, and the repository of their Python models."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from loadtests.gpu import nets
from serving.build.nets.sam_parts import Click, Encode

MODEL = Path(__file__).parent / "triton_model" / "model.py"
CELLS = 64 * 64
FEATURES = {"x0": (CELLS, 256), "k0": (8, 16, CELLS), "v0": (8, CELLS, 16), "q0": (8, CELLS, 16)}
"""As `serving.families.sam_engines.FEATURES`, float32, without the batch axis."""


@dataclass(frozen=True)
class Served:
    """Tensors without the batch axis; all are float32 but `labels`."""

    net: str
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    most: int
    attention: str = ""


SERVED = {
    "lite_encoder": Served("lite_encoder", {"image": (3, 256, 256)}, FEATURES, 64),
    "lite_decoder": Served(
        "lite_decoder",
        {**FEATURES, "points": (-1, -1, 2), "labels": (-1, -1)},
        {"mask": (-1, 1, 256, 256), "iou": (-1, 1)},
        1,
    ),
    "sam_vit_b_encoder": Served("sam_vit_b_encoder", {"image": (3, 1024, 1024)}, FEATURES, 8, "padded"),
    "clip_b32_encoder": Served("clip_b32_encoder", {"pixels": (3, 224, 224)}, {"embedding": (512,)}, 256),
}


def network(name: str, weights: Path) -> nn.Module:
    """The module of one of `SERVED`."""
    if name == "clip_b32_encoder":
        return nets.clip_b32().image_encoder
    if name == "sam_vit_b_encoder":
        return Encode(nets.sam_vit_b(small=False))
    model = nets.lite(weights / "lite_medsam.pth")
    return Encode(model) if name == "lite_encoder" else nets.OneMask(Click(model))


def repository(folder: Path, weights: Path, forms: dict[str, str], device: str) -> list[str]:
    """Write a model for each of `forms` (name of SERVED -> its form). Gives their names."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, form in forms.items():
        one = SERVED[name]
        (folder / name / "1").mkdir(parents=True)
        shutil.copy2(MODEL, folder / name / "1" / "model.py")
        kind = "KIND_CPU" if device == "cpu" else "KIND_GPU"
        said = {
            "ROOT": str(Path(__file__).parents[2]), "WEIGHTS": str(weights.resolve()), "NET": one.net, "FORM": form,
            "ATTENTION": one.attention, "DEVICE": device, "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
        }  # fmt: skip
        lines = [
            f'name: "{name}"', 'backend: "python"', f"max_batch_size: {one.most}",
            *_tensors("input", one.inputs), *_tensors("output", one.outputs),
            f"instance_group [{{ kind: {kind} count: 1 }}]",
            *(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in said.items()),
        ]  # fmt: skip
        (folder / name / "config.pbtxt").write_text("\n".join(lines) + "\n")
    return list(forms)


def _tensors(kind: str, tensors: dict[str, tuple[int, ...]]) -> list[str]:
    types = {"labels": "TYPE_INT64"}
    rows = [
        f'  {{ name: "{name}" data_type: {types.get(name, "TYPE_FP32")} dims: {list(shape)} }}'
        for name, shape in tensors.items()
    ]
    return [f"{kind} [", ",\n".join(rows), "]"]
