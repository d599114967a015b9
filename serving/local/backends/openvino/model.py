"""Triton backend "openvino" in Python: runs `<model>/<version>/model.xml` on the CPU."""

import json
import os
from pathlib import Path

import numpy as np
import openvino as ov
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of one model. Parameters: INFERENCE_PRECISION_HINT (f32), INFERENCE_NUM_THREADS (0: all), NICE (0)."""

    def initialize(self, args):
        """Compile the model. The configuration's precision is asked for explicitly: the CPU plugin would choose bf16."""
        config = json.loads(args["model_config"])
        options = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        os.nice(int(options.get("NICE", 0)))
        threads = int(os.environ.get("MEDSERVE_ENGINE_THREADS", 0)) or int(options.get("INFERENCE_NUM_THREADS", 0))
        threads = threads or len(os.sched_getaffinity(0))
        path = Path(args["model_repository"]) / args["model_version"] / "model.xml"
        properties = {
            "INFERENCE_PRECISION_HINT": options.get("INFERENCE_PRECISION_HINT", "f32"),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        self.request = ov.Core().compile_model(str(path), "CPU", properties).create_infer_request()
        self.inputs = [one["name"] for one in config["input"]]
        self.batched = config["max_batch_size"] > 0

    def execute(self, requests):
        """Answer each request; those of one batch run together, and a bad one fails alone."""
        taken = [{name: pb_utils.get_input_tensor_by_name(r, name).as_numpy() for name in self.inputs} for r in requests]
        if self.batched and len(requests) > 1 and len({_shape(one) for one in taken}) == 1:
            return self._together(requests, taken)
        return [self._alone(request, one) for request, one in zip(requests, taken, strict=True)]

    def _alone(self, request, tensors):
        try:
            return _respond(self._run(tensors, request.requested_output_names()))
        except RuntimeError as exc:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc).splitlines()[0]))

    def _together(self, requests, taken):
        joined = {name: np.concatenate([one[name] for one in taken]) for name in self.inputs}
        wanted = sorted({name for r in requests for name in r.requested_output_names()})
        try:
            given = self._run(joined, wanted)
        except RuntimeError:
            return [self._alone(request, one) for request, one in zip(requests, taken, strict=True)]
        cuts = np.cumsum([len(one[self.inputs[0]]) for one in taken])[:-1]
        parts = {name: np.split(value, cuts) for name, value in given.items()}
        return [_respond({n: parts[n][i] for n in r.requested_output_names()}) for i, r in enumerate(requests)]

    def _run(self, tensors, wanted):
        self.request.infer(tensors, share_inputs=True)
        return {name: self.request.get_tensor(name).data for name in wanted}


def _shape(tensors):
    return tuple(value.shape[1:] for value in tensors.values())


def _respond(tensors):
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in tensors.items()])
