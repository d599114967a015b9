"""CLIP and its fine-tunes: two towers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from serving.build import gate_set, precision, samples
from serving.build.catalogue import DEMONSTRATION, Entry
from serving.build.export import Part
from serving.build.nets import clip
from serving.build.parts import Parts
from serving.build.precision import Choice
from serving.build.recipes import Choices
from serving.build.weights import Say
from serving.domain.prompt import Labels
from serving.families.clip.engines import specs as specs


def parts(state: Mapping[str, Tensor], choices: Choices) -> Parts:
    """The two towers; the options are the sizes that the checkpoint fixes, and the tokenizer."""
    plain = clip.from_hugging_face(dict(state)) if clip.is_hugging_face(state) else state
    pair = clip.load(plain)
    sizes = pair.config
    side, context = sizes.image_size, sizes.context_length
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, sizes.vocab_size - 2, (3, context))
    tokens[:, -1] = sizes.vocab_size - 1
    made = {
        "image_encoder": Part(
            pair.image_encoder, {"pixels": torch.rand(2, 3, side, side)}, {"pixels": {0: "b"}}, ("embedding",), "openvino"
        ),
        "text_encoder": Part(
            pair.text_encoder, {"tokens": torch.from_numpy(tokens)}, {"tokens": {0: "b", 1: "n"}}, ("embedding",), "onnxruntime"
        ),
    }
    images = [{"pixels": 4 * samples.squared(pixels, side) - 2} for pixels in samples.radiology()]
    # A text tower that takes shorter batches must give for them what it gives for the whole context.
    texts = [{"tokens": tokens}, {"tokens": np.ascontiguousarray(tokens[:, -8:])}]
    found = {
        "image_size": side,
        "context_length": context,
        "embed_dim": sizes.embed_dim,
        "logit_scale": pair.scale,
        **_tokenizer(choices.entry),
    }
    return Parts(made, {"image_encoder": images, "text_encoder": texts}, found)


def _tokenizer(entry: Entry) -> dict[str, Any]:
    if not entry.demonstration:
        return {"tokenizer": "clip-bpe"}
    words = (DEMONSTRATION / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    return {"tokenizer": "words", "vocabulary": words}


def own(entry: Entry) -> dict[str, Any]:
    """One plain template; the demonstration's labels."""
    found: dict[str, Any] = {"templates": ["{}"]}
    if entry.demonstration:
        from serving.demonstration.labels import LABELS

        found["labels"] = list(Labels(tuple(LABELS)).names)
    return found


def gate(folders: Mapping[str, Path], *, options: Mapping[str, Any], entry: Entry, say: Say) -> dict[str, Choice]:
    """Embeddings of real images (of drawn ones where the weights were trained on drawings), ranked against labels."""
    images = gate_set.tower_images(int(options["image_size"]), drawn=entry.demonstration)
    text = precision.open_onnx(folders["text_encoder"])
    labels = text({"tokens": gate_set.label_tokens(options)})["embedding"]
    return {"image_encoder": precision.choose_tower(folders["image_encoder"], images, labels, say)}
