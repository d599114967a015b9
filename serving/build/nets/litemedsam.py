"""LiteMedSAM: TinyViT image encoder, SAM prompt encoder and mask decoder; and its parts as they are exported."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from serving.build.nets.folded import FoldedDecoder
from serving.build.nets.sam import MaskDecoder, PromptEncoder
from serving.build.nets.tiny_vit import ImageEncoder
from serving.errors import SetupError

IMAGE_SIZE = 256
GRID = 64


class LiteMedSam(nn.Module):
    """The three parts under the checkpoint's prefixes: 435 tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder()
        self.prompt_encoder = PromptEncoder(IMAGE_SIZE)
        self.mask_decoder = MaskDecoder()


class Decode(nn.Module):
    """features (1, 256, 64, 64), sparse (P, N, 256) -> mask (P, 1, 256, 256), iou (P, 1), masks (P, 3, 256, 256), ious (P, 3).

    `mask` answers one unambiguous prompt, `masks` are three candidates (SAM's multimask output). Logits, float32. Without a
    mask prompt the dense embedding is a constant.
    """

    def __init__(self, model: LiteMedSam) -> None:
        super().__init__()
        self.positions: Tensor
        self.dense: Tensor
        self.decoder = model.mask_decoder
        prompt = model.prompt_encoder
        self.register_buffer("positions", prompt.pe_layer.grid(GRID).reshape(1, GRID * GRID, -1).detach())
        self.register_buffer("dense", prompt.no_mask_embed.weight.detach().reshape(1, -1, 1, 1))

    def forward(self, features: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        return _split(*self.decoder(features + self.dense, self.positions, sparse))


def folded(model: LiteMedSam) -> FoldedDecoder:
    """What `Decode` answers, with about half the work."""
    stock = Decode(model)
    return FoldedDecoder(model.mask_decoder, stock.positions, stock.dense)


class Refine(nn.Module):
    """As `Decode`, with logits (P, 1, 256, 256) of an earlier answer as a dense prompt."""

    def __init__(self, model: LiteMedSam) -> None:
        super().__init__()
        self.decoder = model.mask_decoder
        self.downscaling = model.prompt_encoder.mask_downscaling
        self.register_buffer("positions", model.prompt_encoder.pe_layer.grid(GRID).reshape(1, GRID * GRID, -1).detach())

    def forward(self, features: Tensor, sparse: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        return _split(*self.decoder(features + self.downscaling(logits), self.positions, sparse))


def load(state: Mapping[str, Tensor]) -> LiteMedSam:
    """The model of a checkpoint, in eval mode. Training wrappers (`model`, `module.`) are taken off.

    Raises SetupError that names the first keys or shapes that differ.
    """
    inner = state.get("model", state)
    if not isinstance(inner, Mapping):
        raise SetupError("the checkpoint is not a state dict of LiteMedSAM")
    plain = {key.removeprefix("module."): value for key, value in inner.items()}
    model = LiteMedSam()
    expected = model.state_dict()
    for key, value in expected.items():
        if key not in plain:
            raise SetupError(f"the checkpoint is not LiteMedSAM's: {key} is missing")
        if plain[key].shape != value.shape:
            have, want = tuple(plain[key].shape), tuple(value.shape)
            raise SetupError(f"the checkpoint is not LiteMedSAM's: {key} has shape {have}, not {want}")
    extra = sorted(set(plain) - set(expected))
    if extra:
        raise SetupError(f"the checkpoint is not LiteMedSAM's: {extra[0]} is not known")
    model.load_state_dict(plain)
    return model.eval()


def _split(logits: Tensor, iou: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return logits[:, :1], iou[:, :1], logits[:, 1:], iou[:, 1:]


def example_inputs() -> dict[str, Tensor]:
    """Tensors of the right shapes for tracing: two prompts of two points."""
    return {
        "image": torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE),
        "points": torch.rand(2, 3, 2) * IMAGE_SIZE,
        "labels": torch.tensor([[TOP, BOTTOM, 1], [TOP, BOTTOM, 0]]),
        "features": torch.randn(1, 256, GRID, GRID),
        "sparse": torch.randn(2, 3, 256),
        "logits": torch.randn(2, 1, 4 * GRID, 4 * GRID),
    }


TOP, BOTTOM = 2, 3
