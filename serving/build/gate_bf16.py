"""The precision gate of a GPU's bfloat16 graphs, on the CPU: the same graph, rounded where it rounds (`bf16.emulated`).

What it cannot say is how a GPU's kernels sum. A plan's record therefore tells emulation from execution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from serving.build import bf16, gate, gate_set
from serving.build.gate import Arrays, Engine, Verdict

SIDE_PX = 256
"""Of the masks' gate: its images are prepared as LiteMedSAM's."""

MASK = "mask"
"""Of an engine that has this output only it is computed, as a click asks for no other."""

Graphs = Mapping[str, onnx.ModelProto]


@dataclass(frozen=True)
class Model:
    """What is judged: float32 graphs and samples by part, the record's options, and whether it was trained on drawings."""

    graphs: Graphs
    samples: Mapping[str, Sequence[Arrays]]
    options: Mapping[str, Any]
    drawn: bool


def judge(part: str, model: Model, lowered: Graphs) -> Verdict:
    """One part at bfloat16 against float32: by masks or embeddings of the gate's images where the part makes such, else by the
    outputs on the build's samples.

    `lowered`: the bfloat16 graphs of the parts that were accepted before, and of this one.
    """
    graphs = model.graphs
    if part in ("image_encoder", "mask_decoder") and _makes_masks(graphs):
        return _masks(part, graphs, lowered)
    if part == "image_encoder" and _is_pair_of_towers(model):
        return _embeddings(model, lowered[part])
    return _samples(engine(graphs[part]), engine(lowered[part], low=True), model.samples[part])


def engine(model: onnx.ModelProto, *, low: bool = False) -> Engine:
    """A graph in ONNX Runtime: as it is, or a bfloat16 one emulated."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if low:  # its optimizations would take the rounding for idle
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = bf16.emulated(model) if low else model
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    every = [output.name for output in session.get_outputs()]
    names = [MASK] if MASK in every else every
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def _makes_masks(graphs: Graphs) -> bool:
    encoder = graphs.get("image_encoder")
    return encoder is not None and "mask_decoder" in graphs and _inputs(encoder).get("image") == (3, SIDE_PX, SIDE_PX)


def _masks(part: str, graphs: Graphs, lowered: Graphs) -> Verdict:
    items = gate_set.items()
    encode, decode = engine(graphs["image_encoder"]), engine(graphs["mask_decoder"])
    low_encode = engine(lowered["image_encoder"], low=True) if "image_encoder" in lowered else encode
    low_decode = engine(lowered[part], low=True) if part == "mask_decoder" else decode
    wanted = [gate.masks(item, encode({"image": item.given.tensor}), decode) for item in items]
    found = (gate.masks(item, low_encode({"image": item.given.tensor}), low_decode) for item in items)
    return gate.compare(wanted, found)


def _is_pair_of_towers(model: Model) -> bool:
    graphs = model.graphs
    texts = list(_inputs(graphs["text_encoder"])) if "text_encoder" in graphs else []
    return texts == ["tokens"] and "pixels" in _inputs(graphs["image_encoder"]) and "context_length" in model.options


def _embeddings(model: Model, lowered: onnx.ModelProto) -> Verdict:
    """Ranked against labels by the text tower at float32."""
    tower = model.graphs["image_encoder"]
    images = gate_set.tower_images(_inputs(tower)["pixels"][-1], drawn=model.drawn)
    rows = [
        np.concatenate([run({"pixels": image})["embedding"] for image in images])
        for run in (engine(tower), engine(lowered, low=True))
    ]
    labels = engine(model.graphs["text_encoder"])({"tokens": gate_set.label_tokens(model.options)})["embedding"]
    return gate.judge_embeddings("bf16", rows[0], rows[1], labels)


def _samples(exact: Engine, low: Engine, samples: Sequence[Arrays]) -> Verdict:
    cosines = []
    for sample in samples:
        wanted, found = exact(sample), low(sample)
        cosines += [_cosine(wanted[name], found[name]) for name in wanted]
    least = min(cosines, default=0.0)
    return Verdict("samples", {"cosine_min": round(least, 6), "outputs": len(cosines)}, least >= gate.COSINE_OTHERWISE)


def _cosine(one: Any, other: Any) -> float:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else float(np.array_equal(a, b))


def _inputs(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Input -> its shape without the batch axis; an open size is 0."""
    return {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim)[1:] for i in model.graph.input}
