"""The demonstration pair's files: fp16 weights in OpenAI's layout, and the words of its tokenizer."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from serving.build.nets.clip import Clip, ClipConfig, create, load
from serving.families.tokenizer import WordTokenizer

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.safetensors"
VOCABULARY = HERE / "vocabulary.txt"


def config(vocab_size: int) -> ClipConfig:
    """The sizes of the pair."""
    return ClipConfig(
        embed_dim=128, image_size=128, patch=16, vision_width=192, vision_layers=6, vision_heads=3,
        context_length=64, vocab_size=vocab_size, text_width=128, text_layers=3, text_heads=2,
    )  # fmt: skip


def read_vocabulary(path: Path = VOCABULARY) -> tuple[str, ...]:
    """The tokenizer's words, one a line."""
    return tuple(path.read_text(encoding="utf-8").splitlines())


def open_pair(weights: Path = WEIGHTS, words: Path = VOCABULARY) -> tuple[Clip, WordTokenizer]:
    """The trained towers in f32, and their tokenizer."""
    return load(load_file(weights)), WordTokenizer(read_vocabulary(words))


def read_scale(weights: Path = WEIGHTS) -> float:
    """The logarithm of the trained scale (CLIP's `logit_scale`)."""
    return float(load_file(weights)["logit_scale"])


def cosine_patches(width: int, side: int) -> torch.Tensor:
    """(width, 3, side, side): the lowest spatial frequencies of a patch, so that patches can be read from the first step."""
    order = sorted(((u, v) for u in range(side) for v in range(side)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))[:width]
    place = (torch.arange(side) + 0.5) * math.pi / side
    waves = torch.stack([torch.outer(torch.cos(u * place), torch.cos(v * place)) for u, v in order])
    return (waves / waves.flatten(1).norm(dim=1)[:, None, None])[:, None].expand(-1, 3, -1, -1) / 3


def grid_positions(width: int, side: int) -> torch.Tensor:
    """(side * side, width): sines and cosines of row and column, so that places are told apart from the first step."""
    rate = torch.exp(-math.log(100.0) * torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * rate
    one = torch.cat([angle.sin(), angle.cos()], 1)
    rows, columns = one[:, None].expand(-1, side, -1), one[None].expand(side, -1, -1)
    return torch.cat([rows, columns], -1).reshape(side * side, width)


def new_pair(vocabulary: tuple[str, ...], seed: int) -> tuple[Clip, WordTokenizer]:
    """Untrained towers: small embeddings, projections scaled down with depth as in CLIP, patches and places told apart."""
    torch.manual_seed(seed)
    tokenizer = WordTokenizer(vocabulary)
    clip = create(config(tokenizer.vocab_size))
    nn.init.normal_(clip.text_encoder.token_embedding.weight, std=0.02)
    image = clip.image_encoder
    with torch.no_grad():
        image.conv1.weight.copy_(cosine_patches(clip.config.vision_width, clip.config.patch))
        places = grid_positions(clip.config.vision_width, clip.config.image_size // clip.config.patch)
        image.positional_embedding[1:].copy_(0.5 * places)
    for tower in (clip.image_encoder, clip.text_encoder):
        deep = (2 * len(tower.transformer.resblocks)) ** -0.5
        for block in tower.transformer.resblocks:
            for name, parameter in block.named_parameters():
                width = parameter.shape[-1]
                if name in ("attn.out_proj.weight", "mlp.c_proj.weight"):
                    nn.init.normal_(parameter, std=width**-0.5 * deep)
                elif name == "mlp.c_fc.weight":
                    nn.init.normal_(parameter, std=(2 * width) ** -0.5)
    return clip, tokenizer


def save(
    clip: Clip, vocabulary: tuple[str, ...], logit_scale: float, weights: Path = WEIGHTS, words: Path = VOCABULARY
) -> None:
    """Write both files, the weights as fp16."""
    tensors = {**clip.state_dict(), "logit_scale": torch.tensor(min(logit_scale, math.log(100)))}
    save_file({key: value.detach().half().contiguous() for key, value in tensors.items()}, weights)
    words.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
