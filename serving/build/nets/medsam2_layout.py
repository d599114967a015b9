"""MedSAM2's checkpoints: the original layout (facebookresearch/sam2) and Hugging Face's (Sam2VideoModel)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from serving.build.nets.fit import SHOWN, differences
from serving.build.nets.hiera import GLOBAL_BLOCKS, Sizes
from serving.build.nets.medsam2 import MedSam2
from serving.errors import SetupError

POSITIONS = "image_encoder.trunk.pos_embed"
HUGGING_FACE = "vision_encoder.backbone.pos_embed"
GAUSSIAN = "pe_layer.positional_encoding_gaussian_matrix"
IGNORED = ("shared_image_embedding.positional_embedding",)
"""A second copy of the prompt encoder's."""

RENAMED = (
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (
        r"^prompt_encoder\.shared_embedding\.positional_embedding$",
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "sam_prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "sam_prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "sam_prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "sam_prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "sam_prompt_encoder.mask_downscaling.6."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.upscale_conv1\.", "sam_mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "sam_mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "sam_mask_decoder.output_upscaling.3."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"layer_norm_final_attn\.", "norm_final_attn."),
    (r"^memory_attention\.layer_norm\.", "memory_attention.norm."),
    (r"^memory_encoder\.mask_downsampler\.final_conv\.", "memory_encoder.mask_downsampler.encoder.12."),
    (r"^memory_encoder\.feature_projection\.", "memory_encoder.pix_feat_proj."),
    (r"^memory_encoder\.memory_fuser\.", "memory_encoder.fuser."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"\.depthwise_conv\.", ".dwconv."),
    (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
    (r"^(memory_encoder\.fuser\.layers\.\d)\.layer_norm\.", r"\1.norm."),
    (r"^(memory_encoder\.fuser\.layers\.\d)\.scale$", r"\1.gamma"),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.o_proj\.", ".out_proj."),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
)
"""Hugging Face's names -> the original's, all of them tried in this order."""


def load(state: Mapping[str, Tensor], image_size: int = 512, memory_layers: int = 4) -> MedSam2:
    """The model of a checkpoint of either layout, in eval mode. Wrappers (`model`, `module.`) are taken off.

    The trunk's channels and blocks are told from its shapes; `image_size`, which no tensor shows, and `memory_layers`, which a
    damaged file would have fewer of, are MedSAM2's. Raises SetupError that names the first keys or shapes that differ.
    """
    inner = state.get("model", state)
    if not isinstance(inner, Mapping):
        raise SetupError("the checkpoint is not a state dict of MedSAM2")
    given = {key.removeprefix("module."): value for key, value in inner.items()}
    if HUGGING_FACE in given:
        given = from_hugging_face(given)
    given = {_mlp(key): value for key, value in given.items()}
    model = MedSam2(_sizes(given, image_size, memory_layers))
    _compare(given, model.state_dict())
    model.load_state_dict(given)
    return model.eval()


def from_hugging_face(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original's names for a Sam2VideoModel's tensors."""
    found: dict[str, Tensor] = {}
    for key, value in given.items():
        if key in IGNORED:
            continue
        if key == "prompt_encoder.point_embed.weight":
            found.update({f"sam_prompt_encoder.point_embeddings.{n}.weight": row[None] for n, row in enumerate(value)})
            continue
        found[_renamed(key)] = value
    return found


def _renamed(key: str) -> str:
    if found := re.match(r"memory_encoder\.mask_downsampler\.layers\.(\d)\.(conv|layer_norm)\.(\w+)$", key):
        place = 3 * int(found[1]) + (found[2] == "layer_norm")
        return f"memory_encoder.mask_downsampler.encoder.{place}.{found[3]}"
    if re.search(r"\.mlp\.", key):
        key = key.replace(".proj_in.", ".layers.0.").replace(".proj_out.", ".layers.1.")
    elif re.search(r"head|hypernetworks|object_pointer", key):
        key = re.sub(r"\.layers\.0\.", ".layers.1.", key).replace(".proj_in.", ".layers.0.").replace(".proj_out.", ".layers.2.")
    for pattern, name in RENAMED:
        key = re.sub(pattern, name, key)
    return key


def _mlp(key: str) -> str:
    """The two-way transformer's feed-forward is SAM's class here, with SAM's names."""
    return re.sub(r"(transformer\.layers\.\d\.mlp)\.layers\.(\d)\.", lambda m: f"{m[1]}.lin{int(m[2]) + 1}.", key)


def _sizes(given: Mapping[str, Tensor], image_size: int, memory_layers: int) -> Sizes:
    if POSITIONS not in given:
        raise SetupError(f"the checkpoint is not MedSAM2's: {POSITIONS} is missing")
    first = int(given[POSITIONS].shape[1])
    blocks = sorted({int(m[1]) for key in given if (m := re.match(r"image_encoder\.trunk\.blocks\.(\d+)\.", key))})
    named = [f"image_encoder.trunk.blocks.{n}.norm2.weight" for n in blocks]
    if missing := [key for key in named if key not in given]:
        raise SetupError(f"the checkpoint is not MedSAM2's: {missing[0]} is missing")
    widths = [int(given[key].shape[0]) for key in named]
    stages = tuple(widths.count(first * 2**stage) for stage in range(4))
    if stages not in GLOBAL_BLOCKS:
        raise SetupError(f"the checkpoint is not MedSAM2's: its trunk has {stages} blocks by stage, not (1, 2, 7, 2)")
    return Sizes(image_size, first, stages, memory_layers)


def _compare(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    if found := differences(expected, given):
        raise SetupError(f"the checkpoint is not MedSAM2's: {'; '.join(found[:SHOWN])}")
