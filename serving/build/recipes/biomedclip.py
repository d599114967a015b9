"""BiomedCLIP: timm's ViT and PubMedBERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from serving.build import vocabulary
from serving.build.catalogue import Entry
from serving.build.nets import biomedclip
from serving.build.parts import Parts
from serving.build.recipes import Choices, towers
from serving.families.biomedclip.engines import specs as specs


def parts(state: Mapping[str, Tensor], choices: Choices) -> Parts:
    """The two towers; the options are the sizes that the checkpoint fixes, and the vocabulary."""
    pair = biomedclip.load(state)
    found = {
        "image_size": pair.image_size,
        "context_length": biomedclip.CONTEXT,
        "embed_dim": pair.embed_dim,
        "logit_scale": pair.scale,
        **vocabulary.read(choices.tokenizer, "wordpiece", pair.vocab_size),
    }
    texts = towers.padded_ids(3, biomedclip.CONTEXT, pair.vocab_size)
    return towers.two(pair.image_encoder, pair.text_encoder, pair.image_size, texts, found, lengths=True)


def own(entry: Entry) -> dict[str, Any]:
    """Nothing: the family's template is the published one."""
    del entry
    return {}
