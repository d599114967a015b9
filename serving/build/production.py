"""What a GPU's engine is built for and started with, from its spec: shapes, batches, CUDA graphs, warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from serving.engines.engine import EngineSpec, TensorSpec

TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "int32": "TYPE_INT32", "uint8": "TYPE_UINT8"}
ANY = (1, 2, 64)
"""Least, usual and most of a size that its family does not bound."""
BATCHES = (1, 2, 4, 8, 16, 32)
"""Batches with a CUDA graph of their own; a batch between two of them runs without."""

LEAST, USUAL, MOST = 0, 1, 2
Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""Input -> least, usual and greatest shape, batch axis counted."""


def inputs(spec: EngineSpec) -> tuple[TensorSpec, ...]:
    """What a GPU's engine takes: Features as tensors, then the request's own."""
    return (*spec.reads, *spec.inputs)


def outputs(spec: EngineSpec) -> tuple[TensorSpec, ...]:
    """What it gives."""
    return (*spec.writes, *spec.outputs)


def profile(spec: EngineSpec, batch: int = 0) -> Profile:
    """The shapes of every input. `batch`: the most, where another than the spec's; half of it is the usual."""
    most = min(batch, spec.max_batch) if batch else spec.max_batch
    counts = (1, max(1, most // 2), most)
    return {t.name: _each(t, counts) for t in inputs(spec)}


def _each(tensor: TensorSpec, batches: tuple[int, int, int]) -> tuple[Shape, Shape, Shape]:
    least, usual, most = ((batches[which], *sized(tensor, which)) for which in (LEAST, USUAL, MOST))
    return least, usual, most


def sized(tensor: TensorSpec, which: int = USUAL) -> Shape:
    """The shape, without the batch axis, with its open sizes at their least, usual or most."""
    bounds = iter(tensor.sizes or (ANY,) * tensor.shape.count(-1))
    return tuple(next(bounds)[which] if size == -1 else size for size in tensor.shape)


def cuda_graphs(spec: EngineSpec) -> list[str]:
    """A graph for each usual batch at the usual shapes, a click of one box for example. Others run without."""
    lines = [f"    {line}" for batch in BATCHES if batch <= spec.max_batch for line in _graph(spec, batch)]
    return ["optimization { cuda {", "  graphs: true", *lines, "} }"]


def _graph(spec: EngineSpec, batch: int) -> list[str]:
    shapes = [f'input {{ key: "{t.name}" value {{ dim: {list(sized(t))} }} }}' for t in inputs(spec)]
    return [f"graph_spec {{ batch_size: {batch}", *(f"  {line}" for line in shapes), "}"]


def warm_up(spec: EngineSpec) -> list[str]:
    """Requests of the usual shapes before the model is ready, at batch 1 and at the greatest. Integers are zero."""
    lines = []
    for batch in sorted({1, spec.max_batch}):
        lines += [f'model_warmup {{ name: "batch {batch}" batch_size: {batch} count: 2']
        for tensor in inputs(spec):
            data: Literal["random_data", "zero_data"] = "random_data" if tensor.dtype == "float32" else "zero_data"
            value = f"data_type: {TYPES[tensor.dtype]} dims: {list(sized(tensor))} {data}: true"
            lines += [f'  inputs {{ key: "{tensor.name}" value {{ {value} }} }}']
        lines += ["}"]
    return lines
