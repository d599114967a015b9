"""The precision gate of a GPU's bfloat16 graphs, on the CPU: the same graph, rounded where it rounds (`bf16.emulated`).

What it cannot say is how a GPU's kernels sum. A plan's record therefore tells emulation from execution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from serving.build import bf16, gate, gate_set
from serving.build.gate import Arrays, Engine, Verdict

SIDE_PX = 256
"""Of the masks' gate: its images are prepared as LiteMedSAM's."""

Graphs = Mapping[str, onnx.ModelProto]


def judge(part: str, graphs: Graphs, lowered: Graphs, samples: Sequence[Arrays]) -> Verdict:
    """One part at bfloat16 against float32: by masks or embeddings of the gate's images where the part makes such, else by the
    outputs on the build's samples.

    `graphs`: all float32 parts of the model; `lowered`: those that were accepted at bfloat16 before, and this one.
    """
    if part in ("image_encoder", "mask_decoder") and _makes_masks(graphs):
        return _masks(part, graphs, lowered)
    if part == "image_encoder" and "pixels" in _inputs(graphs[part]) and "text_encoder" in graphs:
        return _embeddings(graphs, lowered)
    return _samples(engine(graphs[part]), engine(lowered[part], low=True), samples)


def engine(model: onnx.ModelProto, *, low: bool = False) -> Engine:
    """A graph in ONNX Runtime: as it is, or a bfloat16 one emulated."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if low:  # its optimizations would take the rounding for idle
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = bf16.emulated(model) if low else model
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    every = [output.name for output in session.get_outputs()]
    names = [gate_mask] if (gate_mask := "mask") in every else every
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


def _embeddings(graphs: Graphs, lowered: Graphs) -> Verdict:
    side = _inputs(graphs["image_encoder"])["pixels"][-1]
    images = gate_set.tower_images(side, drawn=False)
    rows = [
        np.concatenate([run({"pixels": image})["embedding"] for image in images])
        for run in (engine(graphs["image_encoder"]), engine(lowered["image_encoder"], low=True))
    ]
    spread = rows[0][:: max(len(images) // 14, 1)]  # ranked against some of themselves
    return gate.judge_embeddings("bf16", rows[0], rows[1], spread)


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
