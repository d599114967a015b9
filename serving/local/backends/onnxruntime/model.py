"""Triton backend "onnxruntime" in Python: runs `<model>/<version>/model.onnx` on the CPU."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of one model. Parameters: intra_op_thread_count (0: all), NICE (0)."""

    def initialize(self, args):
        """Open the session."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        os.nice(int(parameters.get("NICE", 0)))
        threads = int(os.environ.get("MEDSERVE_ENGINE_THREADS", 0)) or int(parameters.get("intra_op_thread_count", 0))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [one["name"] for one in config["input"]]

    def execute(self, requests):
        """Answer each request by itself: on a CPU a batch of them gains nothing, and a bad one fails alone."""
        return [self._alone(request) for request in requests]

    def _alone(self, request):
        feeds = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        wanted = request.requested_output_names()
        try:
            given = self.session.run(wanted, feeds)
        except Exception as exc:  # onnxruntime's exceptions share no public base
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc).splitlines()[0]))
        tensors = [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in zip(wanted, given, strict=True)]
        return pb_utils.InferenceResponse(tensors)
