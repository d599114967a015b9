"""Triton backend "openvino" in Python: runs `<model>/<version>/model.xml` on the CPU."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import triton_python_backend_utils as pb_utils

sys.path.insert(0, str(Path(__file__).parent))
from features import SLOT, STALE, Stale, reading, writing  # copied beside this file

PRECISION = "precision"
"""A file beside the engine with the inference precision that its gate passed; f32 where there is none."""


class TritonPythonModel:
    """One instance of one model. Parameters: READS and WRITES (names of tensors in the arena, in its order), NICE (0)."""

    def initialize(self, args):
        """Read the model. The precision is asked for explicitly: the CPU plugin would choose bf16."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        os.nice(int(parameters.get("NICE", 0)))
        folder = Path(args["model_repository"]) / args["model_version"]
        self.model = ov.Core().read_model(str(folder / "model.xml"))
        hint = folder / PRECISION
        self.properties = {
            "INFERENCE_PRECISION_HINT": hint.read_text().strip() if hint.exists() else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": int(os.environ.get("MEDSERVE_ENGINE_THREADS", 0)) or len(os.sched_getaffinity(0)),
        }
        self.reads = reading(_shapes(parameters.get("READS", ""), self.model.input))
        self.writes = writing(_shapes(parameters.get("WRITES", ""), self.model.output))
        self.inputs = [one["name"] for one in config["input"] if one["name"] != SLOT]
        self.batched = config["max_batch_size"] > 1 and not (self.reads or self.writes)
        self.compiled = {}
        self._runner(tuple(parameters["WRITES"].split(",")) if self.writes else _first_output(config))

    def execute(self, requests):
        """Answer each request; those of one batch run together where they are alike, and a bad one fails alone."""
        taken = [{name: pb_utils.get_input_tensor_by_name(r, name).as_numpy() for name in self.inputs} for r in requests]
        if self.batched and len(requests) > 1 and len({_shape(one) for one in taken}) == 1:
            return self._together(requests, taken)
        return [self._alone(request, one) for request, one in zip(requests, taken, strict=True)]

    def _alone(self, request, tensors):
        try:
            if self.writes:
                return self._encode(request, tensors)
            if self.reads:
                with self.reads.holding(_slot(request)) as features:
                    return _respond(self._run({**features, **tensors}, request.requested_output_names()))
            return _respond(self._run(tensors, request.requested_output_names()))
        except Stale as exc:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{STALE}: {exc}"))
        except RuntimeError as exc:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc).splitlines()[0]))

    def _encode(self, request, tensors):
        """The network's last layers write into the slot itself."""
        slot = _slot(request)
        with self.writes.holding(slot) as features:
            runner = self._runner(tuple(features))
            for name, place in features.items():
                runner.set_tensor(name, ov.Tensor(place, shared_memory=True))
            runner.infer(tensors, share_inputs=True)
        return _respond({SLOT: slot})

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
        """Copies: the network's own memory holds the next request's values before Triton has taken these."""
        runner = self._runner(tuple(wanted))
        runner.infer(tensors, share_inputs=True)
        return {name: np.array(runner.get_tensor(name).data) for name in wanted}

    def _runner(self, wanted):
        """The network cut down to the outputs wanted: an answer of one mask need not make three."""
        key = frozenset(wanted)
        if key not in self.compiled:
            results = [one for one in self.model.get_results() if one.input_value(0).get_names() & key]
            cut = ov.Model(results, self.model.get_parameters(), "cut")
            self.compiled[key] = ov.Core().compile_model(cut, "CPU", self.properties).create_infer_request()
        return self.compiled[key]


def _first_output(config):
    return (config["output"][0]["name"],)


def _slot(request):
    return pb_utils.get_input_tensor_by_name(request, SLOT).as_numpy()


def _shapes(names, port):
    """name -> shape with one image, of the tensors named."""
    return {name: (1, *(axis.get_length() for axis in list(port(name).partial_shape)[1:])) for name in names.split(",") if name}


def _shape(tensors):
    return tuple(value.shape[1:] for value in tensors.values())


def _respond(tensors):
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in tensors.items()])
