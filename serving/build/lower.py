"""Float32 graphs rewritten to compute some products at lower precision, whatever the network. Inputs and outputs stay float32.

Which: `MatMul` by trained weights, the projections of transformers, with the bias and activation behind them; where asked for,
dense convolutions wider than a pixel and the last attentions' products of queries and keys. Normalisations, softmax, other
products of two activations and the residual stream stay float32, and so do small matrices, such as the positional
encoding's. Explicit types in the graph: a processor without bfloat16 computes them in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

LEAST_WEIGHTS, LEAST_ROWS = 1 << 13, 32
"""Smaller products gain nothing. Rows that are not known before a request are its few prompt tokens."""

Arrays = dict[str, npt.NDArray[Any]]


def projections(model: ov.Model, *, narrowing: bool = True) -> list[Any]:
    """The products by weights, in order. `narrowing`: also those with fewer outputs than inputs (a feed-forward's second)."""
    return [op for op in model.get_ordered_ops() if _is_projection(op) and (narrowing or _outputs(op) >= _inputs(op))]


def to_bf16(model: ov.Model, *, narrowing: bool = True, convolutions: bool = False, scores: int = 0) -> ov.Model:
    """A copy whose projections are bfloat16, its `convolutions` and the queries and keys of its last `scores` attentions.

    See the module.
    """
    copy = model.clone()
    for op in [op for op in copy.get_ordered_ops() if convolutions and _is_wide_convolution(op)]:
        attributes = op.get_attributes()
        given = (_bf16(op.input_value(0)), _constant(op.input_value(1)))
        sides = (attributes[name] for name in ("strides", "pads_begin", "pads_end", "dilations"))
        made = ops.convolution(*given, *sides, attributes["auto_pad"])
        op.output(0).replace(ops.convert(made, ov.Type.f32).output(0))
    for op in attentions(copy)[-scores:] if scores else ():
        op.output(0).replace(_with_bf16_scores(op))
    for product in projections(copy, narrowing=narrowing):
        left = ops.matmul(_bf16(product.input_value(0)), _constant(product.input_value(1)), False, _transposed(product))
        last = product
        while (follower := _follower(last)) is not None:
            if follower.get_type_name() == "Gelu":
                left = ops.gelu(left, follower.get_attributes()["approximation_mode"])
            else:
                left = ops.add(left, _constant(_weights_of(follower)))
            last = follower
        left.set_friendly_name(f"{last.get_friendly_name()}/bf16")
        last.output(0).replace(ops.convert(left, ov.Type.f32).output(0))
    copy.validate_nodes_and_infer_types()
    return copy


def to_int8(model: ov.Model, samples: Sequence[Arrays]) -> ov.Model:
    """A copy whose projections are quantised: activations to 256 levels of the range that they had over `samples`,
    weights to 255 levels of each output's own range. OpenVINO computes `FakeQuantize` around a product in int8."""
    ranges = _ranges(model, samples)
    copy = model.clone()
    for product, (low, high) in zip(projections(copy), ranges, strict=True):
        bounds = [np.float32(low), np.float32(high)]
        product.input(0).replace_source_output(ops.fake_quantize(product.input_value(0), *bounds, *bounds, 256).output(0))
        weights = product.input_value(1)
        span = np.abs(weights.get_node().get_data()).max(axis=1 if _transposed(product) else 0, keepdims=True)
        span = np.maximum(span, 1e-9).astype(np.float32)
        quantised = ops.fake_quantize(weights, -span, span, -span, span, 255)
        product.input(1).replace_source_output(quantised.output(0))
    copy.validate_nodes_and_infer_types()
    return copy


def attentions(model: ov.Model) -> list[Any]:
    """The attentions in order, without a causal mask; OpenVINO finds them in what is exported and makes each one operator."""
    found = [op for op in model.get_ordered_ops() if op.get_type_name() == "ScaledDotProductAttention"]
    return [op for op in found if not op.get_attributes()["causal"]]


def _with_bf16_scores(op: Any) -> Any:
    """The same attention, its products of queries and keys bfloat16, all after them float32."""
    query, key, value, *more = op.input_values()
    scores = ops.convert(ops.matmul(_bf16(query), _bf16(key), False, True), ov.Type.f32)
    width = query.get_partial_shape()[-1].get_length()
    scaled = ops.multiply(scores, more[1] if len(more) > 1 else np.float32(width**-0.5))
    biased = ops.add(scaled, more[0]) if more else scaled
    return ops.matmul(ops.softmax(biased, -1), value, False, False).output(0)


def _is_wide_convolution(op: Any) -> bool:
    if op.get_type_name() != "Convolution" or op.get_element_type() != ov.Type.f32:
        return False
    weights = op.input_value(1).get_node()
    dense = weights.get_type_name() == "Constant" and int(np.prod(weights.shape)) >= LEAST_WEIGHTS
    return dense and any(side > 1 for side in list(weights.shape)[2:])


def _ranges(model: ov.Model, samples: Sequence[Arrays]) -> list[tuple[float, float]]:
    """Least and greatest input of each projection over the samples, 0 among them."""
    watched = model.clone()
    added = [ops.result(product.input_value(0)) for product in projections(watched)]
    watched.add_results(added)
    request = ov.Core().compile_model(watched, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    found = [(0.0, 0.0)] * len(added)
    first = len(watched.outputs) - len(added)
    for sample in samples:
        request.infer(sample)
        values = [request.get_output_tensor(first + number).data for number in range(len(added))]
        found = [(min(low, float(v.min())), max(high, float(v.max()))) for (low, high), v in zip(found, values, strict=True)]
    return found


def _is_projection(op: Any) -> bool:
    if op.get_type_name() != "MatMul" or op.get_attributes()["transpose_a"]:
        return False
    weights = op.input_value(1).get_node()
    if weights.get_type_name() != "Constant" or op.get_element_type() != ov.Type.f32:
        return False
    given = op.get_input_partial_shape(0)
    many = len(given) > 2 and given[-2].is_static and given[-2].get_length() >= LEAST_ROWS
    return many and len(weights.shape) == 2 and int(np.prod(weights.shape)) >= LEAST_WEIGHTS


def _transposed(op: Any) -> bool:
    return bool(op.get_attributes()["transpose_b"])


def _outputs(op: Any) -> int:
    return int(op.input_value(1).get_node().shape[0 if _transposed(op) else 1])


def _inputs(op: Any) -> int:
    return int(op.input_value(1).get_node().shape[1 if _transposed(op) else 0])


def _bf16(output: Any) -> Any:
    """The output at bfloat16; where it was just turned to float32 from it, what it was turned from."""
    node = output.get_node()
    if node.get_type_name() == "Convert" and node.input_value(0).get_element_type() == ov.Type.bf16:
        return node.input_value(0)
    for reader in output.get_target_inputs():
        if reader.get_node().get_type_name() == "Convert" and reader.get_node().get_element_type() == ov.Type.bf16:
            return reader.get_node().output(0)
    return ops.convert(output, ov.Type.bf16).output(0)


def _constant(output: Any) -> Any:
    """Rounded weights."""
    return ops.constant(output.get_node().get_data(), ov.Type.bf16)


def _follower(op: Any) -> Any | None:
    """The bias or activation that alone reads this operator, or None."""
    readers = op.output(0).get_target_inputs()
    if len(readers) != 1:
        return None
    reader = next(iter(readers)).get_node()
    fits = reader.get_type_name() == "Gelu" or (reader.get_type_name() == "Add" and _weights_of(reader) is not None)
    return reader if fits and reader.get_output_partial_shape(0) == op.get_output_partial_shape(0) else None


def _weights_of(add: Any) -> Any | None:
    constants = [add.input_value(n) for n in (0, 1) if add.input_value(n).get_node().get_type_name() == "Constant"]
    return constants[0] if constants else None
