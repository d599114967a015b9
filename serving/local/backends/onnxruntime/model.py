"""Triton backend "onnxruntime" in Python: runs `<model>/<version>/model.onnx` on the CPU."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

sys.path.insert(0, str(Path(__file__).parent))
from features import SLOT, STALE, Stale, reading  # copied beside this file


class TritonPythonModel:
    """One instance of one model. Parameters: READS (names of tensors in the arena, in its order), NICE (0)."""

    def initialize(self, args):
        """Open the session."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        os.nice(int(parameters.get("NICE", 0)))
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("MEDSERVE_ENGINE_THREADS", 0)) or len(os.sched_getaffinity(0))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        shapes = {one.name: tuple(one.shape) for one in self.session.get_inputs()}
        self.reads = reading({name: shapes[name] for name in parameters.get("READS", "").split(",") if name})
        self.inputs = [one["name"] for one in config["input"] if one["name"] != SLOT]

    def execute(self, requests):
        """Answer each request by itself: on a CPU a batch of them gains nothing, and a bad one fails alone."""
        return [self._alone(request) for request in requests]

    def _alone(self, request):
        feeds = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        wanted = request.requested_output_names()
        try:
            if self.reads is None:
                given = self.session.run(wanted, feeds)
            else:
                with self.reads.holding(pb_utils.get_input_tensor_by_name(request, SLOT).as_numpy()) as features:
                    given = self.session.run(wanted, {**features, **feeds})
        except Stale as exc:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{STALE}: {exc}"))
        except Exception as exc:  # onnxruntime's exceptions share no public base
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc).splitlines()[0]))
        tensors = [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in zip(wanted, given, strict=True)]
        return pb_utils.InferenceResponse(tensors)
