import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from serving.build import lower, precision

RNG = np.random.default_rng(0)
TOKENS = RNG.standard_normal((1, 64, 128)).astype(np.float32)


def weights(*shape):
    return (RNG.standard_normal(shape) / 12).astype(np.float32)


def feed_forward(rows=64):
    """x -> x + narrow(gelu(widen(x))), with a small projection and a product of activations behind it."""
    x = ops.parameter([-1, rows, 128], np.float32, "x")
    x.output(0).set_names({"x"})
    hidden = ops.gelu(ops.add(ops.matmul(x, weights(128, 256), False, False), weights(256)), "erf")
    y = ops.add(x, ops.add(ops.matmul(hidden, weights(128, 256), False, True), weights(128)))
    small = ops.matmul(y, weights(128, 4), False, False)
    out = ops.matmul(y, small, True, False)
    out.output(0).set_names({"out"})
    return ov.Model([out], [x], "feed_forward")


def run(model, hint="f32"):
    return precision._compiled(model, hint)({"x": TOKENS})["out"]


def rounded(model):
    """Names of the operators that compute in bfloat16."""
    return [op.get_type_name() for op in model.get_ordered_ops() if op.get_output_size() and _is_bf16(op)]


def _is_bf16(op):
    return op.get_output_element_type(0) == ov.Type.bf16 and op.get_type_name() not in ("Constant", "Convert")


def test_projections_with_bias_and_activation_become_one_island_of_bf16():
    model = feed_forward()
    made = lower.to_bf16(model)
    assert rounded(made) == ["MatMul", "Add", "Gelu", "MatMul", "Add"]
    converts = [op for op in made.get_ordered_ops() if op.get_type_name() == "Convert"]
    assert len(converts) == 2
    assert rounded(model) == []
    assert [port.get_element_type() for port in (*made.inputs, *made.outputs)] == [ov.Type.f32] * 2


def test_narrowing_projections_can_be_left_alone():
    assert rounded(lower.to_bf16(feed_forward(), narrowing=False)) == ["MatMul", "Add", "Gelu"]


def test_rows_that_only_a_request_knows_are_left_alone():
    assert rounded(lower.to_bf16(feed_forward(rows=-1))) == []


@pytest.mark.parametrize("make", [lower.to_bf16, lambda model: lower.to_int8(model, [{"x": TOKENS}])])
def test_a_lowered_graph_still_answers_nearly_the_same(make):
    model = feed_forward()
    wanted, found = run(model).ravel(), run(make(model)).ravel()
    cosine = wanted @ found / np.linalg.norm(wanted) / np.linalg.norm(found)
    assert cosine > 0.999
    assert not np.array_equal(wanted, found)


def test_int8_puts_levels_around_each_projection():
    made = lower.to_int8(feed_forward(), [{"x": TOKENS}])
    assert sum(op.get_type_name() == "FakeQuantize" for op in made.get_ops()) == 4


def attention():
    """A convolution of 3 x 3, one of 1 x 1, then two attentions whose scores are scaled and biased."""
    x = ops.parameter([-1, 32, 8, 8], np.float32, "x")
    x.output(0).set_names({"x"})
    wide = ops.convolution(x, weights(32, 32, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    narrow = ops.convolution(wide, weights(256, 32, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    tokens = ops.reshape(narrow, np.array([0, 256, 64], np.int64), True)
    for more in ([weights(256, 256)], [weights(256, 256), np.float32(0.1)]):
        tokens = ops.scaled_dot_product_attention(tokens, tokens, tokens, *(ops.constant(each) for each in more))
    tokens.output(0).set_names({"out"})
    return ov.Model([tokens], [x], "attention")


def test_wide_convolutions_and_the_last_scores_where_asked_for():
    model = attention()
    assert rounded(lower.to_bf16(model)) == []
    assert rounded(lower.to_bf16(model, convolutions=True)) == ["Convolution"]
    assert rounded(lower.to_bf16(model, scores=2)) == ["MatMul", "MatMul"]
    made = lower.to_bf16(model, convolutions=True, scores=1)
    assert rounded(made) == ["Convolution", "MatMul"]
    assert len(lower.attentions(model)) == 2
    assert len(lower.attentions(made)) == 1
    assert [port.get_element_type() for port in (*made.inputs, *made.outputs)] == [ov.Type.f32] * 2
    given = {"x": RNG.standard_normal((1, 32, 8, 8)).astype(np.float32)}
    wanted, found = (precision._compiled(each, "f32")(given)["out"].ravel() for each in (model, made))
    assert wanted @ found / np.linalg.norm(wanted) / np.linalg.norm(found) > 0.999
