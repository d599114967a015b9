"""What travels to the GPU's machine: the gate's prompts, LiteMedSAM's weights, the graphs without the weights they share.

python -m loadtests.gpu.prepare FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import onnx
import torch

from loadtests.gpu import items, nets, skeleton
from serving import settings
from serving.build import catalogue, export, gate_set, weights
from serving.build.export import Part
from serving.build.nets.sam_parts import Click, Encode
from serving.build.recipes import promptable
from serving.errors import SetupError


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description="write what travels to the GPU's machine")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    items.save(gate_set.items(), folder / "gate.npz")
    checkpoint = weights.pulled(catalogue.find("litemedsam"), settings.load().home)
    if checkpoint is None:
        raise SetupError("LiteMedSAM's weights are not here: run `medserve models pull litemedsam`")
    shutil.copy2(checkpoint.path, folder / "lite_medsam.pth")
    model = nets.lite(checkpoint.path)
    parts = promptable.parts(model, 256, [], {}).parts
    _graph(parts["image_encoder"], Encode(model), folder / "image_encoder.onnx")
    _graph(parts["mask_decoder"], Click(model), folder / "mask_decoder.onnx")
    tower = nets.clip_b32().image_encoder
    part = Part(tower, {"pixels": torch.rand(2, 3, 224, 224)}, {"pixels": {0: "b"}}, ("embedding",), "openvino")
    _graph(part, tower, folder / "clip_image_encoder.onnx")
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def _graph(part: Part, holder: torch.nn.Module, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="medserve-") as work:
        export.to_onnx(part, Path(work) / "model.onnx")
        onnx.save(skeleton.stripped(onnx.load(Path(work) / "model.onnx"), holder.state_dict()), path)


if __name__ == "__main__":
    main()
