"""What a user without this product has: LiteMedSAM exported as it is published, in ONNX, run by ONNX Runtime in float32.

Written once to the bench's cache folder: `image_encoder.onnx` (image -> features) and `mask_decoder.onnx` (features, points,
labels -> mask, iou, masks, ious), the prompt encoder inside. The peers and the comparison of encoders read it.
"""

from __future__ import annotations

from pathlib import Path

from serving.build import weights
from serving.build.catalogue import find
from serving.build.weights import Say

FILES = ("image_encoder.onnx", "mask_decoder.onnx")


def export(folder: Path, home: Path, say: Say) -> Path:
    """The folder with both files, made where they are missing."""
    if all((folder / name).exists() for name in FILES):
        return folder
    say("exporting the stock LiteMedSAM to ONNX, once (PyTorch)")
    import torch
    from torch import Tensor, nn

    from serving.build.export import Part, to_onnx
    from serving.build.nets import litemedsam

    model = litemedsam.load(weights.read(weights.pull(find("litemedsam"), home, say).path))

    class Composed(nn.Module):
        """The prompt encoder, then the decoder as published."""

        def __init__(self) -> None:
            super().__init__()
            self.prompts = model.prompt_encoder
            self.decode = litemedsam.Decode(model)

        def forward(self, features: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            """See the module's docstring."""
            made: tuple[Tensor, ...] = self.decode(features, self.prompts(points, labels))
            return made

    prompts = {"points": {0: "p", 1: "n"}, "labels": {0: "p", 1: "n"}}
    shown = {
        "features": torch.randn(1, 256, litemedsam.GRID, litemedsam.GRID),
        "points": torch.rand(2, 3, 2) * litemedsam.IMAGE_SIZE,
        "labels": torch.tensor([[2, 3, 1], [2, 3, 0]]),
    }
    side = litemedsam.IMAGE_SIZE
    parts = {
        FILES[0]: Part(model.image_encoder, {"image": torch.rand(2, 3, side, side)}, {"image": {0: "b"}}, ("features",), ""),
        FILES[1]: Part(Composed(), shown, prompts, ("mask", "iou", "masks", "ious"), ""),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        written = folder / f"{name}.part"
        to_onnx(part, written)
        written.replace(folder / name)
    return folder
