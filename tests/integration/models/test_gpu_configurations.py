"""Every committed GPU configuration read by the real Triton, warm-up included, before a backend that answers with zeros.

What a CPU's Triton cannot take is replaced: the instances' kind, and TensorRT itself. Of equal ones one is read.
"""

import pytest
import tritonclient.grpc as triton_grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving.local.triton import EmbeddedTriton
from serving.settings import CHECKOUT

pytestmark = pytest.mark.integration

FILES = {path.parent.name: path.read_text() for path in sorted((CHECKOUT / "model_repository").glob("*/config.pbtxt"))}
CONFIGS = {name: FILES[name] for name in {text.replace(name, ""): name for name, text in FILES.items()}.values()}

ZEROS = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = [pb_utils.get_input_tensor_by_name(request, one["name"]).as_numpy() for one in self.config["input"]]
        made = []
        for one in self.config["output"]:
            shape = [given[0].shape[0], *[1 if int(n) == -1 else int(n) for n in one["dims"]]]
            made.append(pb_utils.Tensor(one["name"], np.zeros(shape, pb_utils.triton_string_to_numpy(one["data_type"]))))
        return pb_utils.InferenceResponse(made)
"""


class WithTensorrt(EmbeddedTriton):
    """The embedded Triton with a backend of the name "tensorrt"."""

    def _launch(self, binary):
        folder = self._run_dir / "backends" / "tensorrt"
        folder.mkdir(exist_ok=True)
        (folder / "model.py").write_text(ZEROS)
        super()._launch(binary)


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    for name, text in CONFIGS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.plan").write_bytes(b"a plan")
        (repository / name / "config.pbtxt").write_text(text.replace("KIND_GPU", "KIND_CPU"))
    with WithTensorrt(repository, list(CONFIGS), tmp_path_factory.mktemp("run"), start_timeout_s=300) as running:
        yield running


@pytest.mark.parametrize("name", CONFIGS)
def test_triton_reads_it_as_it_was_meant(triton, name):
    meant = text_format.Parse(CONFIGS[name], model_config_pb2.ModelConfig())
    with triton_grpc.InferenceServerClient(triton.grpc_address) as client:
        assert client.is_model_ready(name)
        read = client.get_model_config(name).config
    assert read.backend == "tensorrt"
    assert read.default_model_filename == "model.plan"
    assert read.max_batch_size == meant.max_batch_size
    assert [(t.name, t.data_type, list(t.dims)) for t in read.input] == [
        (t.name, t.data_type, list(t.dims)) for t in meant.input
    ]
    assert [(t.name, t.data_type, list(t.dims)) for t in read.output] == [
        (t.name, t.data_type, list(t.dims)) for t in meant.output
    ]
    assert read.optimization.cuda == meant.optimization.cuda
    assert read.optimization.cuda.graphs
    assert list(read.model_warmup) == list(meant.model_warmup)
    assert {warm.batch_size for warm in read.model_warmup} == {1, max(meant.max_batch_size, 1)}
    if meant.max_batch_size > 1:  # otherwise Triton adds a preferred batch of its own: one
        assert list(read.dynamic_batching.preferred_batch_size) == list(meant.dynamic_batching.preferred_batch_size) != []
    assert [group.count for group in read.instance_group] == [1]
