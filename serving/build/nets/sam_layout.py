"""State-dict layouts of SAM: the original's, in the wrappers of training scripts, and Hugging Face's converted to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

WRAPPERS = ("model", "state_dict", "model_state_dict")
"""Keys under which training scripts keep the state dict, beside the optimizer's."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Of DataParallel, torch.compile, and of modules that hold the model."""
UNUSED = ("pixel_mean", "pixel_std")
"""Constants of the preprocessing that some checkpoints carry."""

# Two names of one tensor: `shared_image_embedding` is tied to the prompt encoder's.
_PARTS = (
    ("vision_encoder.layers.", "image_encoder.blocks."),
    ("vision_encoder.patch_embed.projection.", "image_encoder.patch_embed.proj."),
    ("vision_encoder.neck.conv1.", "image_encoder.neck.0."),
    ("vision_encoder.neck.layer_norm1.", "image_encoder.neck.1."),
    ("vision_encoder.neck.conv2.", "image_encoder.neck.2."),
    ("vision_encoder.neck.layer_norm2.", "image_encoder.neck.3."),
    ("vision_encoder.", "image_encoder."),
    ("shared_image_embedding.positional_embedding", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    ("prompt_encoder.shared_embedding.positional_embedding", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    ("prompt_encoder.point_embed.", "prompt_encoder.point_embeddings."),
    ("prompt_encoder.mask_embed.conv1.", "prompt_encoder.mask_downscaling.0."),
    ("prompt_encoder.mask_embed.layer_norm1.", "prompt_encoder.mask_downscaling.1."),
    ("prompt_encoder.mask_embed.conv2.", "prompt_encoder.mask_downscaling.3."),
    ("prompt_encoder.mask_embed.layer_norm2.", "prompt_encoder.mask_downscaling.4."),
    ("prompt_encoder.mask_embed.conv3.", "prompt_encoder.mask_downscaling.6."),
    ("mask_decoder.upscale_conv1.", "mask_decoder.output_upscaling.0."),
    ("mask_decoder.upscale_layer_norm.", "mask_decoder.output_upscaling.1."),
    ("mask_decoder.upscale_conv2.", "mask_decoder.output_upscaling.3."),
    ("mask_decoder.transformer.layer_norm_final_attn.", "mask_decoder.transformer.norm_final_attn."),
)
_HEADS = re.compile(r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.(proj_in|layers\.0|proj_out)\.")
_LAYERS = {"proj_in": "layers.0", "layers.0": "layers.1", "proj_out": "layers.2"}


def original(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Any of the layouts -> the original's keys, float32. What belongs to none keeps its name: a strict load names it."""
    plain = _unwrapped(checkpoint)
    if any(key.startswith("vision_encoder.") for key in plain):
        plain = {_renamed(key): value for key, value in plain.items()}
    return {key: value.float() for key, value in plain.items() if key not in UNUSED}


def _unwrapped(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    for name in WRAPPERS:
        if isinstance(inner := checkpoint.get(name), Mapping):
            return _unwrapped(inner)
    plain = {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if plain and all(key.startswith(prefix) for key in plain):
            return _unwrapped({key.removeprefix(prefix): value for key, value in plain.items()})
    return plain


def _renamed(key: str) -> str:
    for old, new in _PARTS:
        if key.startswith(old):
            key = new + key[len(old) :]
            break
    if found := _HEADS.match(key):
        return f"{found[1]}.{_LAYERS[found[2]]}.{key[found.end() :]}"
    return re.sub(r"\.layer_norm(\d)\.", r".norm\1.", key)
