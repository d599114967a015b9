"""A SAM-like model, and its parts as they are exported: encode, click, refine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serving.build.nets.folded import FoldedDecoder, Prepare
from serving.build.nets.sam import BOTTOM_RIGHT, TOP_LEFT, MaskDecoder, PromptEncoder

GRID = 64
"""Cells along a side of the Features."""


class Sam(nn.Module):
    """The three parts under the checkpoints' prefixes. `image_encoder`: images of `image_size` -> (B, 256, 64, 64)."""

    def __init__(self, image_encoder: nn.Module, image_size: int) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(image_size)
        self.mask_decoder = MaskDecoder()


class Decode(nn.Module):
    """features (1, 256, 64, 64), sparse (P, N, 256) -> mask (P, 1, 256, 256), iou (P, 1), masks (P, 3, 256, 256), ious (P, 3).

    `mask` answers one unambiguous prompt, `masks` are three candidates (SAM's multimask output). Logits, float32. Without a
    mask prompt the dense embedding is a constant.
    """

    def __init__(self, model: Sam) -> None:
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


class Encode(nn.Module):
    """image (B, 3, side, side) -> Features: x0, k0, v0, q0 as `folded.Prepare` gives them for a 64 x 64 grid.

    `encoder`: in place of the model's own, which it equals.
    """

    def __init__(self, model: Sam, encoder: nn.Module | None = None) -> None:
        super().__init__()
        stock = Decode(model)
        self.encoder = encoder or model.image_encoder
        self.prepare = Prepare(model.mask_decoder, stock.positions, stock.dense)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        return self.prepare(self.encoder(image))


class Click(nn.Module):
    """Features of one image, points (1, P, N, 2) and labels (1, P, N) -> mask (1, P, 1, 256, 256), iou (1, P, 1), masks, ious.

    The prompt encoder (always float32: sines of large angles) and the folded mask decoder in one graph: one call a click.
    """

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.prompt_encoder = model.prompt_encoder
        self.decoder = FoldedDecoder(model.mask_decoder, Decode(model).positions)

    def forward(self, x0: Tensor, k0: Tensor, v0: Tensor, q0: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        sparse = self.prompt_encoder(points.squeeze(0), labels.squeeze(0))
        return tuple(value.unsqueeze(0) for value in self.decoder(x0, k0, v0, q0, sparse))


class ClickStock(nn.Module):
    """What `Click` must equal: SAM's own prompt encoder and decoder on the encoder's output, told from x0 alone."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.prompt_encoder = model.prompt_encoder
        self.decode = Decode(model)

    def forward(self, x0: Tensor, k0: Tensor, v0: Tensor, q0: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        features = _grid(x0) - self.decode.dense
        return tuple(value.unsqueeze(0) for value in self.decode(features, self.prompt_encoder(points[0], labels[0])))


class Refine(nn.Module):
    """As `Click`, with logits (1, P, 1, 256, 256) of an earlier answer as a dense prompt where `earlier` (1, P) is 1.

    Where it is 0 there is no earlier answer, and the logits count for nothing. SAM's own decoder: folding needs an image that
    is one for all prompts, and pays for few tokens only.
    """

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.prompt_encoder = model.prompt_encoder
        self.decoder = model.mask_decoder
        stock = Decode(model)
        self.dense: Tensor
        self.register_buffer("positions", stock.positions)
        self.register_buffer("dense", stock.dense)

    def forward(self, x0: Tensor, points: Tensor, labels: Tensor, logits: Tensor, earlier: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        sparse = self.prompt_encoder(points.squeeze(0), labels.squeeze(0))
        own = self.prompt_encoder.mask_downscaling(logits.squeeze(0)) - self.dense
        image = _grid(x0) + earlier.reshape(-1, 1, 1, 1) * own
        return tuple(value.unsqueeze(0) for value in _split(*self.decoder(image, self.positions, sparse)))


def _grid(x0: Tensor) -> Tensor:
    """(1, S * S, 256) -> (1, 256, S, S)."""
    return x0.transpose(1, 2).unflatten(2, (GRID, GRID))


def _split(logits: Tensor, iou: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return logits[:, :1], iou[:, :1], logits[:, 1:], iou[:, 1:]


def example_inputs(image_size: int) -> dict[str, Tensor]:
    """Tensors of the right shapes for tracing: two images; two prompts of three points on one image's Features."""
    cells = GRID * GRID
    return {
        "image": torch.rand(2, 3, image_size, image_size),
        "points": torch.rand(1, 2, 3, 2) * image_size,
        "labels": torch.tensor([[[TOP_LEFT, BOTTOM_RIGHT, 1], [TOP_LEFT, BOTTOM_RIGHT, 0]]]),
        "x0": torch.randn(1, cells, 256),
        "k0": torch.randn(1, 8, 16, cells),
        "v0": torch.randn(1, 8, cells, 16),
        "q0": torch.randn(1, 8, cells, 16),
        "logits": torch.randn(1, 2, 1, 4 * GRID, 4 * GRID),
        "earlier": torch.tensor([[1.0, 0.0]]),
    }
