"""SAM 2's mask decoder: SAM's with a token that says whether the object is there, and with the image at finer levels.

Structure of facebookresearch/sam2, `modeling/sam/mask_decoder.py`. The feed-forwards of its transformer are `lin1`, `lin2` here
as in SAM's; `medsam2_layout` renames upstream's `layers.0`, `layers.1`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.build.nets.layers import Mlp
from serving.build.nets.sam import MASKS, WIDTH, MaskHead


class MaskDecoder(MaskHead):
    """Image, positions, prompt tokens and finer levels -> logits, IoU and tokens of four masks, and a presence score."""

    def __init__(self) -> None:
        super().__init__()
        self.obj_score_token = nn.Embedding(1, WIDTH)
        self.conv_s0 = nn.Conv2d(WIDTH, WIDTH // 8, 1)
        self.conv_s1 = nn.Conv2d(WIDTH, WIDTH // 4, 1)
        self.pred_obj_score_head = Mlp(WIDTH, WIDTH, 1)

    def forward(
        self, image: Tensor, image_pe: Tensor, sparse: Tensor, s1: Tensor, s0: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """image (P, G * G, 256) with its dense prompt added, image_pe (1, G * G, 256), sparse (P, N, 256),
        s1 (1, 64, 2 G, 2 G), s0 (1, 32, 4 G, 4 G) -> logits (P, 4, 4 G, 4 G), IoU (P, 4), tokens (P, 4, 256), score (P, 1)."""
        prompts = sparse.shape[0]
        own = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.unsqueeze(0).expand(prompts, -1, -1), sparse], dim=1)
        tokens, grid = self.transformer(image, image_pe, tokens)
        masks = tokens[:, 2 : 2 + MASKS]
        up = self._upscale(grid.transpose(1, 2).unflatten(2, (s1.shape[-1] // 2, -1)), s1, s0)
        ious = self.iou_prediction_head(tokens[:, 1]).sigmoid()
        return self.logits(masks, up), ious, masks, self.pred_obj_score_head(tokens[:, 0])

    def _upscale(self, grid: Tensor, s1: Tensor, s0: Tensor) -> Tensor:
        """(P, 256, G, G) -> (P, 32, 4 G, 4 G)."""
        grow_1, norm, _, grow_2, _ = self.output_upscaling
        return F.gelu(grow_2(F.gelu(norm(grow_1(grid) + s1))) + s0)
