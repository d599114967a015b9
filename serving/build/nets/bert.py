"""BERT's encoder (Devlin et al. 2019) with the state-dict keys of Hugging Face's BertModel, without its pooler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.fit import count_blocks, shape

EPS = 1e-12
HEAD_WIDTH = 64
PAD = 0


@dataclass(frozen=True)
class BertConfig:
    """Sizes: counts and channels."""

    vocab_size: int
    context_length: int
    types: int
    width: int
    hidden: int
    layers: int
    heads: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str, layout: str) -> BertConfig:
        """Read off the tensors below a prefix; heads are width / 64. Raises SetupError."""
        vocab, width = shape(state, f"{prefix}embeddings.word_embeddings.weight", layout)
        return cls(
            vocab,
            shape(state, f"{prefix}embeddings.position_embeddings.weight", layout)[0],
            shape(state, f"{prefix}embeddings.token_type_embeddings.weight", layout)[0],
            width,
            shape(state, f"{prefix}encoder.layer.0.intermediate.dense.weight", layout)[0],
            count_blocks(state, f"{prefix}encoder.layer."),
            max(1, width // HEAD_WIDTH),
        )


class Layer(nn.Module):
    """A post-norm block."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")}),
                "output": _out(width),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, config.hidden)})
        self.output = _out(width, config.hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, W) to (B, L, W). `mask`: (B, 1, 1, L), added to the scores."""
        projections = self.attention["self"]
        q, k, v = (self._split(projections[name](x)) for name in ("query", "key", "value"))  # type: ignore[index]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = _close(self.attention["output"], mixed, x)
        return _close(self.output, F.gelu(self.intermediate["dense"](x)), x)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Bert(nn.Module):
    """Token ids -> the hidden states of every layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.width
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, width),
                "position_embeddings": nn.Embedding(config.context_length, width),
                "token_type_embeddings": nn.Embedding(config.types, width),
                "LayerNorm": nn.LayerNorm(width, eps=EPS),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.layers))})

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Ids (B, L) int64, padded with 0, which nothing attends to -> the outputs of the layers, each (B, L, W)."""
        words, positions, types, norm = self.embeddings.values()
        placed = positions.weight[: tokens.shape[1]] + types.weight[0]  # type: ignore[index]
        x = norm(words(tokens) + placed)
        hidden = torch.where(tokens == PAD, torch.finfo(torch.float32).min, 0.0)[:, None, None, :]
        states = []
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            x = layer(x, hidden)
            states.append(x)
        return states


def _out(width: int, given: int | None = None) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(given or width, width), "LayerNorm": nn.LayerNorm(width, eps=EPS)})


def _close(part: nn.Module, made: Tensor, x: Tensor) -> Tensor:
    """Project, add the residual, normalise."""
    assert isinstance(part, nn.ModuleDict)
    return part["LayerNorm"](part["dense"](made) + x)
