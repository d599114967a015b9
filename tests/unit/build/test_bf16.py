"""The rewriting to bfloat16: what is lowered, what stays float32, and that the emulation rounds as the graph says."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from serving.build import bf16, export
from serving.build.export import Part
from serving.build.gate_bf16 import engine
from serving.errors import SetupError


class Block(nn.Module):
    """Attention, feed-forward, residuals, and sines in a module of the name that stays float32."""

    def __init__(self):
        super().__init__()
        self.prompt_encoder = nn.Linear(4, 32)
        self.norm, self.qkv, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x, points):
        x = x + torch.sin(self.prompt_encoder(points) * 50)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(q @ k.transpose(1, 2) / 6, -1) @ v)
        return x + self.mlp(x), x.sum(-1)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    torch.manual_seed(0)
    example = {"x": torch.randn(2, 5, 32), "points": torch.randn(2, 5, 4)}
    axes = {"x": {0: "b", 1: "n"}, "points": {0: "b", 1: "n"}}
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export.to_onnx(Part(Block(), example, axes, ("y", "sum"), "onnxruntime"), path)
    return onnx.load(path)


def types(model):
    """Operator -> the set of types that its outputs have, by ONNX's own inference."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    at = {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.output)}
    found = {}
    for node in model.graph.node:
        found.setdefault(node.op_type, set()).add(at[node.output[0]])
    return found


def test_products_are_lowered_and_norms_softmax_sines_and_residuals_are_not(graph):
    low = bf16.to_bf16(graph)
    onnx.checker.check_model(low, full_check=True)
    found = types(low)
    assert found["Gelu"] == {TensorProto.BFLOAT16}
    for kept in ("LayerNormalization", "Softmax", "Sin", "ReduceSum"):
        assert found[kept] == {TensorProto.FLOAT}
    assert bf16.counts(low)["MatMul"] == sum(n.op_type == "MatMul" for n in graph.graph.node) - 1  # the prompt encoder's
    assert [o.type.tensor_type.elem_type for o in low.graph.output] == [TensorProto.FLOAT] * 2
    assert [i.type.tensor_type.elem_type for i in low.graph.input] == [TensorProto.FLOAT] * 2
    assert next(o.version for o in low.opset_import) >= 17
    assert graph.opset_import[0].version == export.OPSET, "the given graph is left as it was"


def test_each_value_is_cast_once_and_nothing_is_left_over(graph):
    low = bf16.to_bf16(graph)
    casts = [(n.input[0], n.attribute[0].i) for n in low.graph.node if n.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    used = {name for n in low.graph.node for name in n.input}
    assert {t.name for t in low.graph.initializer} <= used


def test_the_emulation_differs_by_rounding_and_not_by_more(graph):
    rng = np.random.default_rng(0)
    given = {
        "x": rng.standard_normal((3, 7, 32)).astype(np.float32),
        "points": rng.standard_normal((3, 7, 4)).astype(np.float32),
    }
    exact, low = engine(graph)(given), engine(bf16.to_bf16(graph), low=True)(given)
    for name, wanted in exact.items():
        difference = np.abs(low[name] - wanted).max() / np.abs(wanted).max()
        assert 1e-5 < difference < 2e-2, name


def test_a_product_is_of_rounded_values_summed_in_float32():
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((64, 8)).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 64])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 8])],
            [numpy_helper.from_array(weights, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    x = rng.standard_normal((5, 64)).astype(np.float32)
    rounded = [value.astype(ml_dtypes.bfloat16).astype(np.float32) for value in (x, weights)]
    wanted = (rounded[0] @ rounded[1]).astype(ml_dtypes.bfloat16).astype(np.float32)
    found = engine(bf16.to_bf16(model), low=True)({"x": x})["y"]
    assert np.mean(found == wanted) > 0.95  # a sum in another order may fall on the other side of a tie
    assert np.abs(found - wanted).max() <= 2**-7 * np.abs(wanted).max()
    assert np.array_equal(found, found.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_a_graph_with_branches_is_refused():
    inner = helper.make_graph([], "inner", [], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    boolean = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph([node], "g", [boolean], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    with pytest.raises(SetupError, match="branch"):
        bf16.to_bf16(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def test_onnx_runtime_has_no_say_in_the_emulation_s_rounding(graph):
    session = onnxruntime.InferenceSession(bf16.emulated(bf16.to_bf16(graph)).SerializeToString())
    assert {o.type for o in session.get_outputs()} == {"tensor(float)"}
