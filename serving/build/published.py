"""The sizes of each entry's published checkpoint: what the committed configurations and the models' pages are made from."""

from __future__ import annotations

from typing import Any

from serving.build import config
from serving.build.catalogue import Entry
from serving.families.registry import FAMILIES
from serving.manifest import Manifest

OPTIONS: dict[str, dict[str, Any]] = {
    "synthetic-cxr": {"image_size": 128, "embed_dim": 128, "context_length": 64},
    # ViT-B/32, which both projects publish; a checkpoint of other sizes gets its own when it is built.
    "clip": {"image_size": 224, "embed_dim": 512, "context_length": 77},
    "chexzero": {"image_size": 224, "embed_dim": 512, "context_length": 77},
    "medclip": {"image_size": 224, "embed_dim": 512, "context_length": 77},
    "biomedclip": {"image_size": 224, "embed_dim": 512, "context_length": 256},
    "medsiglip": {"image_size": 448, "embed_dim": 1152, "context_length": 64},
}
"""Entry -> what its recipe would read off the checkpoint. An entry that is not here has one size only."""

BACKENDS = {"image_encoder": "openvino", "mask_decoder": "openvino"}
"""Part -> its backend on the CPU; the others' is onnxruntime."""


def draft(entry: Entry) -> Manifest:
    """The record as it would be, without engines."""
    family = entry.models[0][1]
    return Manifest(
        model=entry.name,
        family=family,
        pool=entry.pool,
        digest="",
        source="",
        licence="",
        engines={},
        options=OPTIONS.get(entry.name, {}),
    )


def configurations(entry: Entry) -> dict[str, str]:
    """Path in the repository -> the text that is committed there."""
    found = {}
    for part, spec in FAMILIES[entry.models[0][1]].specs(draft(entry)).items():
        found[f"{spec.name}/config.pbtxt"] = config.tensorrt(spec)
        found[f"{spec.name}/configs/cpu.pbtxt"] = config.cpu(spec, BACKENDS.get(part, "onnxruntime"))
    return found
