"""MedSAM2: SAM 2.1 with the Hiera-T trunk at 512 pixels, under the checkpoint's own keys. Its parts: `medsam2_parts`.

Structure of facebookresearch/sam2, `modeling/sam2_base.py`, with the choices of bowang-lab/MedSAM2's `sam2.1_hiera_t512.yaml`.
"""

from __future__ import annotations

import torch
from torch import nn

from serving.build.nets.hiera import Sizes
from serving.build.nets.hiera_neck import ImageEncoder
from serving.build.nets.layers import Mlp
from serving.build.nets.memory_attention import MEMORY, WIDTH, MemoryAttention
from serving.build.nets.memory_encoder import MemoryEncoder
from serving.build.nets.sam import PromptEncoder
from serving.build.nets.sam2_decoder import MaskDecoder

MEMORIES = 7
"""Places in time that a memory can have: the prompted slice, and one to six slices ago."""


class MedSam2(nn.Module):
    """The parts under the checkpoint's prefixes."""

    def __init__(self, sizes: Sizes = Sizes()) -> None:  # noqa: B008, frozen
        super().__init__()
        self.sizes = sizes
        self.image_encoder = ImageEncoder(sizes)
        self.memory_attention = MemoryAttention(sizes.memory_layers)
        self.memory_encoder = MemoryEncoder()
        self.sam_prompt_encoder = PromptEncoder(sizes.image_size)
        self.sam_mask_decoder = MaskDecoder()
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(MEMORIES, 1, 1, MEMORY))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, WIDTH))
        self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, MEMORY))
        self.mask_downsample = nn.Conv2d(1, 1, 4, 4)
        self.obj_ptr_proj = Mlp(WIDTH, WIDTH, WIDTH)
        self.obj_ptr_tpos_proj = nn.Linear(WIDTH, MEMORY)
