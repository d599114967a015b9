"""Float32 ONNX graphs rewritten to bfloat16 by explicit casts: a strongly typed network of TensorRT takes its types from here.

The rules are those of PyTorch's autocast. Products by weights and of activations are bfloat16. LayerNorm, softmax, reductions,
sines, the residual stream and all that lies within a prompt encoder stay float32; what only moves or bends values follows its
input. Inputs and outputs of the graph keep their types.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.errors import SetupError

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "Einsum"})
"""Not ConvTranspose: TensorRT-RTX 1.7 builds none at bfloat16."""
FOLLOW = frozenset(
    {
        "Add", "Mul", "Relu", "Gelu", "Sigmoid", "Tanh", "Reshape", "Transpose", "Slice", "Pad", "Split", "Unsqueeze",
        "Squeeze", "Concat", "Gather", "GatherND", "Expand", "Flatten", "Identity", "MaxPool",
    }
)  # fmt: skip
"""bfloat16 where all their activations are; a constant beside them rounds. A sum of two activations is a residual: float32."""

KEPT_SCOPES = ("prompt_encoder", "pe_layer", "positional_encoding")
"""Modules that stay float32 whole: sines of large angles are made there."""

OPSET = 22
"""The first in which Conv is defined for bfloat16. Nothing else that these graphs use changed since 20."""

FLOAT, BF16 = TensorProto.FLOAT, TensorProto.BFLOAT16


def to_bf16(model: onnx.ModelProto, *, projections: bool = False) -> onnx.ModelProto:
    """A copy at bfloat16: see the module. `projections`: products by weights only, without convolutions and attention's own.

    Raises SetupError for a graph with branches, which no exported family has.
    """
    return _Rewriter(model, projections).run()


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """A bfloat16 graph in float32 arithmetic that rounds where it rounds: products of rounded values, summed in float32.

    What a tensor core computes, on any machine. For ONNX Runtime with its optimizations off.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    low = _bf16_values(graph)
    for tensor in graph.initializer:
        if tensor.data_type == BF16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes = []
    for node in graph.node:
        rounds = [name for name in node.output if name in low]
        if node.op_type == "Cast" and not rounds and node.input[0] in low:
            node = helper.make_node("Identity", node.input, node.output)
        if not rounds:
            nodes.append(node)
            continue
        if node.op_type == "Cast":
            nodes += _rounded(node.input[0], node.output[0])
            continue
        exact = [f"{name}_exact" if name in low else name for name in node.output]
        kept, outputs = onnx.NodeProto(), list(node.output)
        kept.CopyFrom(node)
        kept.output[:] = exact
        nodes.append(kept)
        for before, after in zip(exact, outputs, strict=True):
            nodes += _rounded(before, after) if after in low else []
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return copy


def counts(model: onnx.ModelProto) -> dict[str, int]:
    """How many operators of each type compute at bfloat16 (casts left out)."""
    low, found = _bf16_values(model.graph), dict[str, int]()
    for node in model.graph.node:
        if node.op_type != "Cast" and any(name in low for name in node.output):
            found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


class _Rewriter:
    """One pass over the nodes in order. `at`: value -> its type; `names`: value -> its name, where an output gave its up."""

    def __init__(self, model: onnx.ModelProto, projections: bool) -> None:
        self.projections = projections
        self.model = onnx.ModelProto()
        self.model.CopyFrom(onnx.shape_inference.infer_shapes(model))
        graph = self.model.graph
        self.at: dict[str, int] = {
            value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
        }
        self.at |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.constants = set(self.tensors) | {n.output[0] for n in graph.node if n.op_type == "Constant"}
        self.outputs = {value.name for value in graph.output}
        self.names: dict[str, str] = {}
        self.made: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        for node in list(graph.node):
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                raise SetupError(f"the graph has a branch ({node.op_type}): it is not lowered")
            self._node(node)
        for name in sorted(self.outputs & set(self.names)):
            self.nodes.append(helper.make_node("Cast", [self.names[name]], [name], to=FLOAT))
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.value_info[:]
        used = {name for node in self.nodes for name in node.input} | self.outputs
        kept = [tensor for tensor in (*graph.initializer, *self.tensors.values()) if tensor.name in used]
        unique = {tensor.name: tensor for tensor in kept}
        del graph.initializer[:]
        graph.initializer.extend(unique.values())
        _raise_opset(self.model)
        onnx.checker.check_model(self.model)
        return self.model

    def _node(self, node: onnx.NodeProto) -> None:
        floats = [n for n, name in enumerate(node.input) if name and self.at.get(name) in (FLOAT, BF16)]
        wanted = BF16 if floats and self._lowered(node, [node.input[n] for n in floats]) else FLOAT
        for n, name in enumerate(node.input):
            node.input[n] = self._cast(name, wanted) if n in floats else self.names.get(name, name)
        if wanted == BF16:
            for n, name in enumerate(node.output):
                if self.at.get(name) == FLOAT:
                    self.at[name] = BF16
                    if name in self.outputs:
                        self.names[name] = node.output[n] = f"{name}_bf16"
        self.nodes.append(node)

    def _lowered(self, node: onnx.NodeProto, floats: list[str]) -> bool:
        if _kept(node) or not all(self.at.get(name) == FLOAT for name in node.output if name):
            return False
        if node.op_type in PRODUCTS:
            return not self.projections or (node.op_type in ("MatMul", "Gemm") and node.input[1] in self.constants)
        activations = [name for name in floats if name not in self.constants]
        residual = node.op_type == "Add" and len(activations) > 1
        return bool(
            node.op_type in FOLLOW and activations and not residual and all(self.at[name] == BF16 for name in activations)
        )

    def _cast(self, name: str, wanted: int) -> str:
        """The value at a type: itself, a rounded constant, or a cast of it (one for all its readers)."""
        current = self.names.get(name, name)
        if self.at[name] == wanted:
            return current
        if (name, wanted) not in self.made:
            made = self.made[name, wanted] = f"{name}_as_{'bf16' if wanted == BF16 else 'f32'}"
            if name in self.tensors:
                rounded = numpy_helper.to_array(self.tensors[name]).astype(ml_dtypes.bfloat16)
                self.tensors[made] = numpy_helper.from_array(rounded, made)
            else:
                self.nodes.append(helper.make_node("Cast", [current], [made], to=wanted))
        return self.made[name, wanted]


def _kept(node: onnx.NodeProto) -> bool:
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "")
    return any(scope in scopes for scope in KEPT_SCOPES)


def _rounded(before: str, after: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [before], [f"{after}_rounded"], to=BF16),
        helper.make_node("Cast", [f"{after}_rounded"], [after], to=FLOAT),
    ]


def _bf16_values(graph: onnx.GraphProto) -> set[str]:
    """The names of all values at bfloat16: constants, what is cast to it, and what is computed from such alone."""
    low = {tensor.name for tensor in graph.initializer if tensor.data_type == BF16}
    for node in graph.node:
        if node.op_type == "Cast":
            low |= set(node.output) if _to(node.attribute) == BF16 else set()
        elif node.op_type in PRODUCTS | FOLLOW and any(name in low for name in node.input):
            low |= set(node.output)
    return low


def _to(attributes: Iterable[Any]) -> int:
    return next(int(a.i) for a in attributes if a.name == "to")


def _raise_opset(model: onnx.ModelProto) -> None:
    for imported in model.opset_import:
        if imported.domain in ("", "ai.onnx") and imported.version < OPSET:
            imported.version = OPSET
