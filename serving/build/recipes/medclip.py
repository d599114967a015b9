"""MedCLIP: Swin-T or ResNet-50 and Bio-ClinicalBERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from serving.build import vocabulary
from serving.build.catalogue import Entry
from serving.build.nets import medclip
from serving.build.parts import Parts
from serving.build.recipes import Choices, towers
from serving.errors import SetupError
from serving.families.medclip.engines import specs as specs
from serving.families.medclip.postprocess import ENSEMBLES


def parts(state: Mapping[str, Tensor], choices: Choices) -> Parts:
    """The two towers; the options are the sizes, the vocabulary, and how the user wants sentences drawn and put together."""
    pair = medclip.load(state)
    found = {
        "image_size": pair.image_size,
        "context_length": medclip.CONTEXT,
        "embed_dim": pair.embed_dim,
        "logit_scale": pair.scale,
        "preprocessing": choices.preprocessing or choices.entry.preprocessings[0],
        **_drawn({**choices.entry.options, **choices.options}),
        **vocabulary.read(choices.tokenizer, "wordpiece", pair.vocab_size),
    }
    texts = towers.padded_ids(3, medclip.CONTEXT, pair.vocab_size)
    return towers.two(pair.image_encoder, pair.text_encoder, pair.image_size, texts, found, lengths=True)


def _drawn(options: Mapping[str, str]) -> dict[str, Any]:
    if options["ensemble"] not in ENSEMBLES:
        raise SetupError(f"ensemble is one of {', '.join(ENSEMBLES)}, not {options['ensemble']}")
    for name in ("sentences", "seed"):
        if not options[name].isdecimal():
            raise SetupError(f"{name} is a whole number of 0 or more, not {options[name]}")
    return {"ensemble": options["ensemble"], "sentences": int(options["sentences"]), "seed": int(options["seed"])}


def own(entry: Entry) -> dict[str, Any]:
    """Nothing: checkpoint and choices fix all of it."""
    del entry
    return {}
