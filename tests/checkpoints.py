"""A small checkpoint with seeded weights for every entry of the catalogue: what no published file is needed for.

Whoever adds an entry adds a line: its engines are then built with TensorRT too (`tests/unit/build/test_tensorrt.py`).
"""

import math
import tempfile
from functools import cache
from pathlib import Path

import medlam
import onnx
import sam2_pair
import sams
import small_checkpoints
import torch

from serving.build import weights
from serving.build.catalogue import ENTRIES
from serving.build.nets import clip, litemedsam, medsam2_layout
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


def _sam():
    """1024 pixels, as every SAM that is served; two narrow blocks, one in windows, in place of ViT-B's, L's or H's."""
    return sams.tiny_sam().state_dict()


def _medsam2():
    """512 pixels, as the entry; a narrow trunk. What is behind the trunk is of one size in every SAM 2."""
    return medsam2_layout.load(sam2_pair.hugging_face(512).state_dict(), 512).state_dict()


def _medlsam():
    """Without DataParallel's prefix."""
    return {key.removeprefix("module."): value for key, value in medlam.small_medlam().items()}


FILES = {
    "medclip": small_checkpoints.medclip_checkpoint,
    "biomedclip": small_checkpoints.biomedclip_checkpoint,
    "medsiglip": small_checkpoints.medsiglip_checkpoint,
}
"""Entry -> what writes its file, with its tokenizer's beside it, into a folder."""

WRITTEN = tempfile.TemporaryDirectory(prefix="medserve-checkpoints-")
"""Where they lie until the process ends."""


@cache
def _file(name):
    folder = Path(WRITTEN.name) / name
    folder.mkdir()
    return FILES[name](folder)


def tokenizer(name):
    """The file that tells an entry's ids, or None where it needs none."""
    found = [_file(name).parent / each for each in ENTRIES[name].tokenizer]
    return next((path for path in found if path.exists()), None)


def _medclip():
    return weights.read(_file("medclip"))


def _biomedclip():
    return weights.read(_file("biomedclip"))


def _medsiglip():
    return weights.read(_file("medsiglip"))


CHECKPOINTS = {
    "litemedsam": _litemedsam,
    "medsam": _sam,
    "sam-vit-b": _sam,
    "sam-vit-l": _sam,
    "sam-vit-h": _sam,
    "medsam2": _medsam2,
    "medlsam": _medlsam,
    "synthetic-cxr": _clip,
    "clip": _clip,
    "chexzero": _clip,
    "medclip": _medclip,
    "biomedclip": _biomedclip,
    "medsiglip": _medsiglip,
}

SOME = {
    **dict.fromkeys(("medsam", "sam-vit-b", "sam-vit-l", "sam-vit-h"), ("image_encoder",)),
    "medsam2": ("image_encoder", "mask_tracker", "memory_encoder"),
}
"""Entry -> the parts that the tests build. SAM's other two are LiteMedSAM's; MedSAM2's have the tracker's mask decoder."""


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
