"""One OpenVINO model behind Triton's Python backend: inputs and outputs by the configuration's names."""

import json
from typing import Any

import numpy as np
import openvino as ov
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Parameters: path, hint, threads."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile."""
        config = json.loads(args["model_config"])
        said = {key: value["string_value"] for key, value in config["parameters"].items()}
        options = {
            "INFERENCE_PRECISION_HINT": said["hint"],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": int(said["threads"]),
        }
        model = ov.Core().read_model(said["path"])
        wanted = {one["name"] for one in config["output"]}
        results = [one for one in model.get_results() if one.input_value(0).get_names() & wanted]
        cut = ov.Model(results, model.get_parameters(), "cut")
        self.request = ov.Core().compile_model(cut, "CPU", options).create_infer_request()
        self.inputs = [one["name"] for one in config["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer one after the other."""
        answers = []
        for request in requests:
            given = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            self.request.infer(given, share_inputs=True)
            wanted = request.requested_output_names()
            tensors = [pb_utils.Tensor(name, np.ascontiguousarray(self.request.get_tensor(name).data)) for name in wanted]
            answers.append(pb_utils.InferenceResponse(tensors))
        return answers
