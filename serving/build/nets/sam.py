"""SAM's prompt encoder and mask decoder, with the original state-dict keys.

Structure of facebookresearch/segment-anything, `modeling/prompt_encoder.py`, `transformer.py` and `mask_decoder.py`.
LayerNorm epsilons are upstream's: 1e-5 in the two-way transformer, 1e-6 in LayerNorm2d.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from serving.build.nets.layers import LayerNorm2d, Mlp

WIDTH = 256
HEADS = 8
MASKS = 4
PAD, NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""Point labels that the prompt encoder takes."""


class FourierPositions(nn.Module):
    """Random Fourier features of coordinates in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.positional_encoding_gaussian_matrix: Tensor
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, WIDTH // 2))

    def encode(self, coordinates: Tensor) -> Tensor:
        """(..., 2) as (x, y) in [0, 1] -> (..., 256)."""
        angle = 2 * math.pi * ((2 * coordinates - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def grid(self, side: int) -> Tensor:
        """(side, side, 256): the positions of the centres of a square grid."""
        centre = (torch.arange(side, dtype=torch.float32) + 0.5) / side
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        return self.encode(torch.stack([x, y], dim=-1))


class PromptEncoder(nn.Module):
    """points (P, N, 2) float32, pixels of the model frame, and labels (P, N) int64 -> sparse (P, N, 256) float32.

    Labels: see the constants of this module. Coordinates are moved by half a pixel to pixel centres here, as upstream does
    for points and for box corners; a PAD's coordinate does not matter.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.pe_layer = FourierPositions()
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, WIDTH) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, WIDTH)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, 2), LayerNorm2d(4), nn.GELU(),
            nn.Conv2d(4, 16, 2, 2), LayerNorm2d(16), nn.GELU(),
            nn.Conv2d(16, WIDTH, 1),
        )  # fmt: skip
        self.no_mask_embed = nn.Embedding(1, WIDTH)

    def forward(self, points: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        positions = self.pe_layer.encode((points + 0.5) / self.image_size)
        table = torch.cat([self.not_a_point_embed.weight, *(one.get_parameter("weight") for one in self.point_embeddings)])
        real = (labels != PAD).unsqueeze(-1).to(positions.dtype)
        return positions * real + table[labels + 1]


class Attention(nn.Module):
    """Multi-head attention (B, T, 256) over (B, N, 256), inside at `inner` channels."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, inner)
        self.k_proj = nn.Linear(WIDTH, inner)
        self.v_proj = nn.Linear(WIDTH, inner)
        self.out_proj = nn.Linear(inner, WIDTH)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, T, 256), keys and values (B, N, 256) -> (B, T, 256)."""
        q, k, v = split_heads(self.q_proj(q)), split_heads(self.k_proj(k)), split_heads(self.v_proj(v))
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        mixed = scores.softmax(-1) @ v
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """(B, T, 256) -> the same, by ReLU at 2048 channels. Keys `lin1`, `lin2`."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1 = nn.Linear(WIDTH, 2048)
        self.lin2 = nn.Linear(2048, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.lin2(torch.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image to the tokens."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.cross_attn_token_to_image = Attention(WIDTH // 2)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = FeedForward()
        self.norm3 = nn.LayerNorm(WIDTH)
        self.norm4 = nn.LayerNorm(WIDTH)
        self.cross_attn_image_to_token = Attention(WIDTH // 2)

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (P, T, 256) and image (P, N, 256), each with its positions -> both, updated."""
        if self.first:
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            q = tokens + token_pe
            tokens = self.norm1(tokens + self.self_attn(q, q, tokens))
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Two blocks, then the tokens' last look at the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(first=number == 0) for number in range(2))
        self.final_attn_token_to_image = Attention(WIDTH // 2)
        self.norm_final_attn = nn.LayerNorm(WIDTH)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """image (P, N, 256), image_pe (1, N, 256), tokens (P, T, 256) -> tokens and image, updated."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        last = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + last), image


class MaskHead(nn.Module):
    """What the mask decoders of SAM and SAM 2 share: transformer, tokens of the masks and their IoU, and the way to pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer()
        self.iou_token = nn.Embedding(1, WIDTH)
        self.mask_tokens = nn.Embedding(MASKS, WIDTH)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(WIDTH, WIDTH // 4, 2, 2),
            LayerNorm2d(WIDTH // 4),
            nn.GELU(),
            nn.ConvTranspose2d(WIDTH // 4, WIDTH // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp(WIDTH, WIDTH, WIDTH // 8) for _ in range(MASKS))
        self.iou_prediction_head = Mlp(WIDTH, WIDTH, MASKS)

    def logits(self, masks: Tensor, pixels: Tensor) -> Tensor:
        """Tokens of the masks (P, 4, 256) and pixels (P, 32, H, W) -> logits (P, 4, H, W)."""
        hyper = torch.stack([mlp(masks[:, n]) for n, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return (hyper @ pixels.flatten(2)).unflatten(2, (pixels.shape[-2], -1))


class MaskDecoder(MaskHead):
    """Image, positions and prompt tokens -> the logits of four masks and their estimated IoU."""

    def forward(self, image: Tensor, image_pe: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """image (1 or P, 256, S, S) with its dense prompt added, image_pe (1, S * S, 256), sparse (P, N, 256) ->
        logits (P, 4, 4 S, 4 S), IoU (P, 4)."""
        prompts, side = sparse.shape[0], image.shape[-1]
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).unsqueeze(0).expand(prompts, -1, -1)
        tokens = torch.cat([own, sparse], dim=1)
        grid = image.flatten(2).transpose(1, 2).expand(prompts, -1, -1)
        tokens, grid = self.transformer(grid, image_pe, tokens)
        up = self.output_upscaling(grid.transpose(1, 2).reshape(prompts, WIDTH, side, side))
        return self.logits(tokens[:, 1 : 1 + MASKS], up), self.iou_prediction_head(tokens[:, 0])


def split_heads(x: Tensor) -> Tensor:
    """(P, T, C) -> (P, 8, T, C / 8)."""
    return x.reshape(x.shape[0], x.shape[1], HEADS, -1).transpose(1, 2)
