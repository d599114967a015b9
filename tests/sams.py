"""Small SAMs with seeded weights: real layouts, position parameters that are not the zeros they start as."""

import torch
from transformers import SamConfig, SamModel

from serving.build.nets import medsam
from serving.build.nets.sam_vit import Sizes

SAM_B = Sizes(768, 3072, 12, 16, 64, tuple(64 if n in (2, 5, 8, 11) else 14 for n in range(12)))
TINY = Sizes(32, 64, 1, 16, 64, (14, 64))
"""A SAM of 1024 pixels that a test can afford."""


def seeded(module, seed=0):
    """The module in eval mode, its weights of about trained sizes."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "pos" in name:
                value.normal_(std=0.3)
            elif value.ndim > 1:
                torch.nn.init.xavier_uniform_(value)
            else:
                value.add_(0.1 * torch.randn_like(value))
        for name, value in module.named_buffers():
            if "positional" in name:
                value.normal_()
    return module.eval()


def tiny_sam(seed=0):
    return seeded(medsam.SamVit(TINY), seed)


def hugging_face(side, patch, window, layers=3, width=48, heads=3, globally=(1,)):
    """Hugging Face's SamModel of these sizes, with upstream's epsilon in the decoder's transformer (Hugging Face has 1e-6)."""
    vision = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "global_attn_indexes": list(globally),
        "num_pos_feats": 128, "image_size": side, "patch_size": patch, "window_size": window, "mlp_dim": 2 * width,
    }  # fmt: skip
    prompt = {"image_size": side, "patch_size": patch, "image_embedding_size": side // patch}
    sam = seeded(SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt)))
    with torch.no_grad():
        sam.prompt_encoder.shared_embedding.positional_embedding.copy_(sam.shared_image_embedding.positional_embedding)
    for module in sam.mask_decoder.transformer.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    return sam
