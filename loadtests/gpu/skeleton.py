"""ONNX graphs without the weights that a module holds anyway, so that a graph of a large network travels as a small file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from torch import Tensor

LEAST_BYTES = 4096
MARK = "medserve.from:"
"""Begins an initializer's doc string: the name of a tensor, with .T where it is that one transposed."""


def stripped(model: onnx.ModelProto, state: Mapping[str, Tensor]) -> onnx.ModelProto:
    """A copy whose initializers that equal a tensor of `state`, or one transposed, are marked and empty."""
    known: dict[str, str] = {}
    for name, tensor in state.items():
        value = tensor.detach().numpy()
        known[_digest(value)] = name
        if value.ndim == 2:
            known[_digest(value.T)] = f"{name}.T"
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.nbytes >= LEAST_BYTES and (name := known.get(_digest(value))):
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.doc_string = MARK + name
    return copy


def filled(model: onnx.ModelProto, state: Mapping[str, Tensor]) -> onnx.ModelProto:
    """`stripped`, undone with the tensors of a module of the same sizes."""
    for tensor in model.graph.initializer:
        if tensor.doc_string.startswith(MARK):
            name = tensor.doc_string.removeprefix(MARK)
            value = state[name.removesuffix(".T")].detach().numpy()
            made = numpy_helper.from_array(np.ascontiguousarray(value.T if name.endswith(".T") else value), tensor.name)
            tensor.CopyFrom(made)
    return model


def _digest(value: npt.NDArray[np.float32]) -> str:
    return f"{value.shape}{value.dtype}{hashlib.sha256(np.ascontiguousarray(value)).hexdigest()}"
