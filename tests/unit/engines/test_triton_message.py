"""The messages are those that tritonclient's own objects make, and are read as it reads them."""

import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc._utils import _get_inference_request

from serving.engines import triton_message
from serving.engines.engine import TensorSpec
from serving.engines.triton_message import Place

POINTS = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
LABELS = np.array([[[2, 3], [2, 3], [1, -1]]], np.int64)
READ = Place(TensorSpec("x0", "float32", (4, 2)), "region", 4096, 32)
FIRST = Place(TensorSpec("k0", "int32", (4,)), "region", 0, 16)


def objects(places):
    found = []
    for place, kind in places:
        tensor = triton.InferInput(place.spec.name, [1, *place.spec.shape], kind)
        tensor.set_shared_memory(place.region, place.nbytes, offset=place.offset)
        found.append(tensor)
    for name, value, kind in (("points", POINTS, "FP32"), ("labels", LABELS, "INT64")):
        tensor = triton.InferInput(name, list(value.shape), kind)
        tensor.set_data_from_numpy(value)
        found.append(tensor)
    return found


@pytest.mark.parametrize("timeout_us", [0, 1_500_000])
def test_a_request_is_what_tritonclient_would_send(timeout_us):
    written = triton.InferRequestedOutput("x0")
    written.set_shared_memory(READ.region, READ.nbytes, offset=READ.offset)
    expected = _get_inference_request(
        model_name="m", inputs=objects([(READ, "FP32"), (FIRST, "INT32")]), model_version="2", request_id="r",
        outputs=[written, triton.InferRequestedOutput("mask")], sequence_id=0, sequence_start=False, sequence_end=False,
        priority=0, timeout=timeout_us or None, parameters=None,
    )  # fmt: skip
    made = triton_message.request(
        "m", "2", [("points", POINTS), ("labels", LABELS)], ["mask"], reads=[READ, FIRST], writes=[READ],
        timeout_us=timeout_us, request_id="r",
    )  # fmt: skip
    assert made == expected


def test_arrays_that_are_views_are_sent_as_they_read():
    made = triton_message.request("m", "", [("points", POINTS[..., ::-1])], ())
    assert np.frombuffer(made.raw_input_contents[0], np.float32).tolist() == POINTS[..., ::-1].ravel().tolist()


def tensor(name, datatype, shape, region=""):
    made = pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
    if region:
        made.parameters[triton_message.REGION].string_param = region
    return made


def test_a_response_is_read_as_tritonclient_reads_it():
    rows = [tensor("x0", "FP32", [1, 4], "region"), tensor("mask", "FP32", [1, 3, 2, 2]), tensor("slot", "INT64", [1, 3, 2])]
    response = pb.ModelInferResponse(outputs=rows, raw_output_contents=[b"", POINTS.tobytes(), LABELS.tobytes()])
    found, theirs = triton_message.outputs(response), triton.InferResult(response)
    assert found.keys() == {"mask", "slot"}
    for name, value in found.items():
        expected = theirs.as_numpy(name)
        assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(value, expected)


@pytest.mark.parametrize(
    ("datatype", "shape", "content"), [("FP32", [1, 3], bytes(8)), ("XX", [1], bytes(4)), ("BYTES", [1], b"")]
)
def test_bytes_that_are_not_what_is_said_of_them_are_missing(datatype, shape, content):
    response = pb.ModelInferResponse(outputs=[tensor("mask", datatype, shape)], raw_output_contents=[content])
    assert triton_message.outputs(response) == {}


def test_an_empty_tensor_is_one():
    response = pb.ModelInferResponse(outputs=[tensor("mask", "FP32", [1, 0, 2])], raw_output_contents=[b""])
    assert triton_message.outputs(response)["mask"].shape == (1, 0, 2)
