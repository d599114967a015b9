"""MedSigLIP: SigLIP's two towers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from serving.build import vocabulary
from serving.build.catalogue import Entry
from serving.build.nets import siglip
from serving.build.parts import Parts
from serving.build.recipes import Choices, towers
from serving.families.medsiglip.engines import specs as specs


def parts(state: Mapping[str, Tensor], choices: Choices) -> Parts:
    """The two towers; the options are the sizes that the checkpoint fixes, and the vocabulary. Text is never shorter."""
    pair = siglip.load(state)
    found = {
        "image_size": pair.image_size,
        "context_length": pair.context_length,
        "embed_dim": pair.embed_dim,
        "logit_scale": pair.scale,
        "logit_bias": pair.bias,
        "preprocessing": choices.preprocessing or choices.entry.preprocessings[0],
        **vocabulary.read(choices.tokenizer, "siglip", pair.vocab_size),
    }
    tokens = np.random.default_rng(0).integers(0, pair.vocab_size, (3, pair.context_length))
    texts = [{"tokens": tokens}, {"tokens": tokens[:1]}]
    return towers.two(pair.image_encoder, pair.text_encoder, pair.image_size, texts, found, lengths=False)


def own(entry: Entry) -> dict[str, Any]:
    """Nothing: the checkpoint fixes all of it."""
    del entry
    return {}
