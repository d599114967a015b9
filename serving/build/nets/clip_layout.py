"""State-dict layouts of CLIP: OpenAI's, and Hugging Face's CLIPModel converted to it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

StateDict = Mapping[str, Tensor]

_TOWERS = (
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
)
_BLOCK = (
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)
_TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
_QUERY = re.compile(r"^(?P<layer>.*)\.self_attn\.q_proj\.(?P<kind>weight|bias)$")


def is_hugging_face(sd: StateDict) -> bool:
    """Whether these are the keys of Hugging Face's CLIPModel."""
    return any(key.startswith(("vision_model.", "text_model.")) for key in sd)


def from_hugging_face(sd: StateDict) -> dict[str, Tensor]:
    """Hugging Face's CLIPModel to OpenAI's layout: q, k and v fused, both projections transposed, names changed.

    Keys that belong to neither are kept as they are, so that a strict load names them.
    """
    out: dict[str, Tensor] = {}
    for key, value in sd.items():
        if key.endswith("embeddings.position_ids") or re.search(r"\.self_attn\.[kv]_proj\.", key):
            continue
        if key in _TRANSPOSED:
            out[_TRANSPOSED[key]] = value.t().contiguous()
        elif match := _QUERY.match(key):
            parts = [sd[f"{match['layer']}.self_attn.{part}_proj.{match['kind']}"] for part in "qkv"]
            out[_renamed(match["layer"]) + f".attn.in_proj_{match['kind']}"] = torch.cat(parts)
        else:
            out[_renamed(key)] = value
    return out


def _renamed(key: str) -> str:
    for old, new in _TOWERS:
        if key.startswith(old):
            key = new + key[len(old) :]
            break
    for old, new in _BLOCK:
        key = key.replace(old, new)
    return key
