"""SAM's mask decoder with its image-side projections folded away: equal in exact arithmetic, about half the work.

The two-way transformer projects all 64 x 64 image tokens ten times. With few prompt tokens T, most of that moves to them:

- Block 0 reads an image without a mask prompt: its keys, values and queries are made once an image (`Prepare`).
- Elsewhere q (X Wk)^T = (q Wk^T) X^T and softmax(S) (X Wv + b) = (softmax(S) X) Wv + b; a key's bias falls out of a softmax
  over image tokens; positions are constants, projected when the graph is made.
- A transposed convolution of stride 2 and size 2 is a matrix product in channels-last order, and LayerNorm2d an ordinary one.

Folding costs about 8 T columns for each projection's 128: with many points a prompt, `MaskDecoder` itself is cheaper
(docs/decisions/0030 has where).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.sam import HEADS, WIDTH, Attention, MaskDecoder, TwoWayBlock, split_heads

INNER = WIDTH // 2
HEAD = INNER // HEADS
SCALE = 1 / math.sqrt(HEAD)


class Prepare(nn.Module):
    """Once an image: the encoder's output (B, 256, S, S) -> what block 0 reads of an image without a mask prompt.

    x0 (B, S * S, 256), k0 (B, 8, 16, S * S), v0 and q0 (B, 8, S * S, 16), the queries scaled. `positions` (1, S * S, 256);
    `dense` (1, 256, 1, 1): no mask.
    """

    def __init__(self, decoder: MaskDecoder, positions: Tensor, dense: Tensor) -> None:
        super().__init__()
        self.positions: Tensor
        self.dense: Tensor
        self.register_buffer("positions", positions)
        self.register_buffer("dense", dense.reshape(1, 1, WIDTH))
        block = decoder.transformer.layers[0]
        assert isinstance(block, TwoWayBlock)
        self.token_to_image, self.image_to_token = block.cross_attn_token_to_image, block.cross_attn_image_to_token

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        x0 = features.permute(0, 2, 3, 1).flatten(1, 2) + self.dense
        placed = x0 + self.positions
        k0 = split_heads(self.token_to_image.k_proj(placed)).transpose(-1, -2)
        v0 = split_heads(self.token_to_image.v_proj(x0))
        return x0, k0, v0, split_heads(self.image_to_token.q_proj(placed)) * SCALE


class FoldedDecoder(nn.Module):
    """What `Prepare` gives of one image, and sparse (P, N, 256) -> mask, iou, masks, ious as `litemedsam.Decode`.

    `decoder`: the trained decoder, whose weights are shared; `positions` (1, S * S, 256).
    """

    def __init__(self, decoder: MaskDecoder, positions: Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        self.key_positions: Tensor
        self.query_positions: Tensor
        self.last_key_positions: Tensor
        self.grow_1: Tensor
        self.grow_2: Tensor
        self.bias_1: Tensor
        self.bias_2: Tensor
        self._side = math.isqrt(positions.shape[1])
        block = decoder.transformer.layers[1]
        assert isinstance(block, TwoWayBlock)
        last = decoder.transformer.final_attn_token_to_image
        with torch.no_grad():
            self.register_buffer("key_positions", _keys(positions, block.cross_attn_token_to_image))
            self.register_buffer("last_key_positions", _keys(positions, last))
            queries = split_heads(block.cross_attn_image_to_token.q_proj(positions)) * SCALE
            self.register_buffer("query_positions", queries.contiguous())
            for name, layer in ((1, 0), (2, 3)):
                weight = decoder.output_upscaling[layer].get_parameter("weight")
                self.register_buffer(f"grow_{name}", weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1).contiguous())
                self.register_buffer(f"bias_{name}", decoder.output_upscaling[layer].get_parameter("bias").repeat(4))

    def forward(self, x0: Tensor, k0: Tensor, v0: Tensor, q0: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        first, second = self.decoder.transformer.layers
        assert isinstance(first, TwoWayBlock)
        assert isinstance(second, TwoWayBlock)
        own = torch.cat([self.decoder.iou_token.weight, self.decoder.mask_tokens.weight])
        start = torch.cat([own.unsqueeze(0).expand(sparse.shape[0], -1, -1), sparse], dim=1)
        tokens, image = self._first(first, start, x0, k0, v0, q0)
        tokens, image = self._second(second, tokens, start, image)
        last = self.decoder.transformer.final_attn_token_to_image
        seen = _look(last, tokens + start, image, self.last_key_positions)
        tokens = self.decoder.transformer.norm_final_attn(tokens + seen)
        up, iou = self._upscale(image), self.decoder.iou_prediction_head(tokens[:, 0])
        # One or three masks, apart, so that a runtime that was asked for one need not make the others.
        return self._masks(up, tokens, (0,)), iou[:, :1], self._masks(up, tokens, (1, 2, 3)), iou[:, 1:]

    def _first(
        self, block: TwoWayBlock, start: Tensor, x0: Tensor, k0: Tensor, v0: Tensor, q0: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One image for all prompts in, an image for each out."""
        tokens = block.norm1(block.self_attn(start, start, start))
        a = block.cross_attn_token_to_image
        mixed = (split_heads(a.q_proj(tokens + start)) * SCALE @ k0).softmax(-1) @ v0
        tokens = block.norm2(tokens + a.out_proj(mixed.transpose(1, 2).flatten(2)))
        tokens = block.norm3(tokens + block.mlp(tokens))
        a = block.cross_attn_image_to_token
        keys = split_heads(a.k_proj(tokens + start))
        heard = (q0 @ keys.transpose(-1, -2)).softmax(-1).transpose(1, 2).flatten(2)
        return tokens, block.norm4(x0 + heard @ _spoken(a, tokens) + a.out_proj.bias)

    def _second(self, block: TwoWayBlock, tokens: Tensor, start: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        q = tokens + start
        tokens = block.norm1(tokens + block.self_attn(q, q, tokens))
        tokens = block.norm2(tokens + _look(block.cross_attn_token_to_image, tokens + start, image, self.key_positions))
        tokens = block.norm3(tokens + block.mlp(tokens))
        a = block.cross_attn_image_to_token
        keys = split_heads(a.k_proj(tokens + start))
        folded = (keys @ _by_head(a.q_proj) * SCALE).flatten(1, 2)
        placed = (self.query_positions @ keys.transpose(-1, -2)).transpose(1, 2)
        scores = (image @ folded.transpose(1, 2)).unflatten(2, (HEADS, -1)) + placed
        heard = scores.softmax(-1).flatten(2)
        return tokens, block.norm4(image + heard @ _spoken(a, tokens) + a.out_proj.bias)

    def _upscale(self, image: Tensor) -> Tensor:
        """(P, S * S, 256) -> (P, S * S * 16, 32): each grid token's 4 x 4 pixels, (y, x) of each doubling."""
        norm, tokens = self.decoder.output_upscaling[1], image.shape[1]
        up = (image @ self.grow_1 + self.bias_1).reshape(-1, 4 * tokens, WIDTH // 4)
        up = F.gelu(F.layer_norm(up, up.shape[-1:], norm.get_parameter("weight"), norm.get_parameter("bias"), 1e-6))
        return F.gelu(up @ self.grow_2 + self.bias_2).reshape(-1, 16 * tokens, WIDTH // 8)

    def _masks(self, up: Tensor, tokens: Tensor, which: tuple[int, ...]) -> Tensor:
        """Pixels as `_upscale` gives them and tokens (P, T, 256) -> logits (P, M, 4 S, 4 S)."""
        side = self._side
        hyper = torch.stack([self.decoder.output_hypernetworks_mlps[n](tokens[:, 1 + n]) for n in which], dim=2)
        pixels = (up @ hyper).reshape(-1, side, side, 2, 2, 2, 2, len(which)).permute(0, 7, 1, 3, 5, 2, 4, 6)
        return pixels.reshape(-1, len(which), 4 * side, 4 * side)


def _keys(positions: Tensor, a: Attention) -> Tensor:
    """(1, S * S, 256) -> (1, 8, 16, S * S): the positions' part of the keys."""
    return split_heads(positions @ a.k_proj.weight.T).transpose(-1, -2).contiguous()


def _by_head(layer: nn.Linear) -> Tensor:
    """(128, 256) -> (8, 16, 256)."""
    return layer.weight.reshape(HEADS, HEAD, WIDTH)


def _look(a: Attention, queries: Tensor, image: Tensor, key_positions: Tensor) -> Tensor:
    """Tokens (P, T, 256) attend to an image (P, S * S, 256) whose keys and values are never formed -> (P, T, 256)."""
    prompts, count, _ = queries.shape
    q = split_heads(a.q_proj(queries)) * SCALE
    folded = (q @ _by_head(a.k_proj)).flatten(1, 2)
    scores = (folded @ image.transpose(1, 2)).unflatten(1, (HEADS, -1)) + q @ key_positions
    mixed = (scores.softmax(-1).flatten(1, 2) @ image).unflatten(1, (HEADS, -1))
    values = mixed @ _by_head(a.v_proj).transpose(1, 2) + a.v_proj.bias.reshape(HEADS, 1, HEAD)
    return a.out_proj(values.transpose(1, 2).reshape(prompts, count, INNER))


def _spoken(a: Attention, tokens: Tensor) -> Tensor:
    """Tokens (P, T, 256) -> (P, 8 T, 256): what each head of each token adds to an image token that attends to it alone."""
    return (split_heads(a.v_proj(tokens)) @ a.out_proj.weight.T.reshape(HEADS, HEAD, WIDTH)).flatten(1, 2)
