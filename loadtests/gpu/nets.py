"""The networks that are measured: LiteMedSAM with its trained weights, SAM ViT-B and CLIP ViT-B/32 with seeded ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from serving.build.nets import clip, litemedsam
from serving.build.nets.medsam import SamVit
from serving.build.nets.sam_parts import Sam
from serving.build.nets.sam_vit import Sizes

GFLOP = {"litemedsam": 75.0, "sam_vit_b": 972.0, "clip_b32": 8.82, "click": 1.73, "prepare": 0.81}
"""Of one image, or of one prompt of two points: multiplications and additions, by PyTorch's counter on the published graphs."""

WINDOW, GLOBAL = 14, 64
SAM_VIT_B = Sizes(768, 3072, 12, 16, GLOBAL, tuple(GLOBAL if n in (2, 5, 8, 11) else WINDOW for n in range(12)))
SAM_SMALL = Sizes(64, 128, 1, 16, 8, (8, 4))


def lite(weights: Path) -> Sam:
    """The published checkpoint."""
    return litemedsam.load(torch.load(weights, map_location="cpu", weights_only=True))


def sam_vit_b(small: bool) -> SamVit:
    """Seeded; positions made non-trivial, as trained ones are."""
    torch.manual_seed(0)
    model = SamVit(SAM_SMALL if small else SAM_VIT_B).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "rel_pos" in name or name.endswith("pos_embed"):
                value.normal_(std=0.02)
        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.normal_()
    return model


def clip_b32() -> clip.Clip:
    """Seeded."""
    torch.manual_seed(32)
    sizes = clip.ClipConfig(
        embed_dim=512, image_size=224, patch=32, vision_width=768, vision_layers=12, vision_heads=12,
        context_length=77, vocab_size=49408, text_width=512, text_layers=12, text_heads=8,
    )  # fmt: skip
    return clip.create(sizes)


class OneMask(nn.Module):
    """`sam_parts.Click` asked for one mask and its IoU, as a click on the server is."""

    def __init__(self, click: nn.Module) -> None:
        super().__init__()
        self.click = click

    def forward(self, x0: Tensor, k0: Tensor, v0: Tensor, q0: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """mask (1, P, 1, 256, 256), iou (1, P, 1)."""
        mask, iou, _, _ = self.click(x0, k0, v0, q0, points, labels)
        return mask, iou
