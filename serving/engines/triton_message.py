"""One call to Triton as one protobuf message: tensors <-> `ModelInferRequest` and `ModelInferResponse`, no objects between.

Fields and parameter names are those of the KServe inference protocol with Triton's shared-memory extension
(triton-inference-server/server, docs/protocol/extension_shared_memory.md). tritonclient's own dtype names are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from serving.engines.engine import TensorSpec

REGION, BYTES, OFFSET, TIMEOUT = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "timeout"


@dataclass(frozen=True)
class Place:
    """A tensor of one image that lies at `offset` bytes of a registered region and takes `nbytes` there."""

    spec: TensorSpec
    region: str
    offset: int
    nbytes: int


def nbytes(spec: TensorSpec) -> int:
    """Bytes of a tensor of one image whose shape is known."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def request(
    model: str,
    version: str,
    inputs: Iterable[tuple[str, npt.NDArray[Any]]],
    outputs: Iterable[str],
    *,
    reads: Iterable[Place] = (),
    writes: Iterable[Place] = (),
    timeout_us: int = 0,
    request_id: str = "",
) -> Any:
    """The message. `inputs`: (name, array) whose bytes go in the message; `reads`, `writes`: tensors that do not.

    `timeout_us`: for a server whose queue heeds it. No priority: an engine without priority levels takes none.
    """
    made = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    if timeout_us > 0:
        made.parameters[TIMEOUT].int64_param = timeout_us
    for place in reads:
        tensor = made.inputs.add(name=place.spec.name, datatype=_type(place.spec.dtype), shape=(1, *place.spec.shape))
        _lies_at(tensor, place)
    for name, value in inputs:
        made.inputs.add(name=name, datatype=_type(value.dtype), shape=value.shape)
        made.raw_input_contents.append(value.tobytes())
    for place in writes:
        _lies_at(made.outputs.add(name=place.spec.name), place)
    for name in outputs:
        made.outputs.add(name=name)
    return made


def outputs(response: Any) -> dict[str, npt.NDArray[Any]]:
    """name -> array, read-only views of the message's bytes; what lies in shared memory is left out.

    A tensor whose bytes do not fill its shape is left out too: the caller misses it.
    """
    found = {}
    for tensor, content in zip(response.outputs, response.raw_output_contents, strict=False):
        if REGION in tensor.parameters:
            continue
        dtype = triton_to_np_dtype(tensor.datatype)
        shape = tuple(tensor.shape)
        if dtype is not None and dtype is not np.object_ and len(content) == np.dtype(dtype).itemsize * math.prod(shape):
            found[tensor.name] = np.frombuffer(content, dtype).reshape(shape)
    return found


def _type(dtype: Any) -> str:
    name: str = np_to_triton_dtype(np.dtype(dtype))
    return name


def _lies_at(tensor: Any, place: Place) -> None:
    tensor.parameters[REGION].string_param = place.region
    tensor.parameters[BYTES].int64_param = place.nbytes
    if place.offset:
        tensor.parameters[OFFSET].int64_param = place.offset
