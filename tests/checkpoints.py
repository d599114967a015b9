"""A small checkpoint with seeded weights for every entry of the catalogue: what no published file is needed for.

Whoever adds an entry adds a line: its engines are then built with TensorRT too (`tests/unit/build/test_tensorrt.py`).
"""

import math

import onnx
import torch

from serving.build.catalogue import ENTRIES
from serving.build.nets import clip, litemedsam
from serving.errors import SetupError
from serving.manifest import read_all
from serving.settings import load


def _litemedsam():
    """Full width; weights of about trained sizes, so that rounding is seen."""
    model = litemedsam.LiteMedSam().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.mask_decoder.named_parameters():
            if value.ndim > 1 and "token" not in name:
                torch.nn.init.xavier_uniform_(value, generator=generator)
        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.normal_(generator=generator)
    return model.state_dict()


def _clip(width=128, layers=2, side=64, patch=16, embed_dim=64, vocabulary=200, context=16, text_width=64):
    config = clip.ClipConfig(
        embed_dim=embed_dim,
        image_size=side,
        patch=patch,
        vision_width=width,
        vision_layers=layers,
        vision_heads=max(width // 64, 1),
        context_length=context,
        vocab_size=vocabulary,
        text_width=text_width,
        text_layers=layers,
        text_heads=max(text_width // 64, 1),
    )
    torch.manual_seed(0)
    return clip.create(config, math.log(1 / 0.07)).state_dict()


def vit_b_32():
    """CLIP ViT-B/32 at its published sizes."""
    return _clip(768, 12, 224, 32, 512, 49408, 77, 512)


CHECKPOINTS = {
    "litemedsam": _litemedsam,
    "synthetic-cxr": _clip,
    "clip": _clip,
    "chexzero": _clip,
}


def checkpoint(name):
    """The function that makes the state dict of an entry."""
    assert name in CHECKPOINTS, f"add a small seeded checkpoint of {name} to tests/checkpoints.py"
    return CHECKPOINTS[name]


def built(name):
    """(options, part -> float32 ONNX) of an entry that `make build` built, or None: exporting is most of a build's time."""
    repository = load().repository.path
    try:
        record = read_all(repository, (ENTRIES[name].models[0][0],))[0]
    except SetupError:
        return None
    paths = {part: repository / found[0].name / found[0].version / "model.onnx" for part, found in record.engines.items()}
    if not all(path.exists() for path in paths.values()):
        return None
    return record.options, {part: onnx.load(path) for part, path in paths.items()}
