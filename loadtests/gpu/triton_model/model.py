"""A Python model of Triton that runs one of the networks with PyTorch on the GPU, its usual shapes as CUDA graphs.

Parameters: ROOT (where `serving` and `loadtests` lie), WEIGHTS (the checkpoint's folder), NET, FORM and ATTENTION
(`loadtests.gpu.lowered`), DEVICE. Inputs and outputs may lie in the GPU's memory: what a client put into CUDA shared memory is
not copied to the host.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance on one device. Each request is a call of its own: batches are made by who asks."""

    def initialize(self, args):
        """Read the weights, lower the network."""
        config = json.loads(args["model_config"])
        said = {key: value["string_value"] for key, value in config["parameters"].items()}
        sys.path.insert(0, said["ROOT"])
        from loadtests.gpu import lowered, served

        self.device = said["DEVICE"]
        self.names = [one["name"] for one in config["input"]]
        self.outputs = [one["name"] for one in config["output"]]
        net = served.network(said["NET"], Path(said["WEIGHTS"]))
        self.call = lowered.run(net, said["FORM"], self.device, attention=said["ATTENTION"])
        self.graphs = {}

    def execute(self, requests):
        """Answer each request; a bad one fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        try:
            given = [self._taken(pb_utils.get_input_tensor_by_name(request, name)) for name in self.names]
            made = self._run(given)
            if self.device != "cpu":
                torch.cuda.current_stream().synchronize()
            wanted = request.requested_output_names()
            named = [(name, value) for name, value in zip(self.outputs, made, strict=True) if name in wanted]
            return pb_utils.InferenceResponse([self._given(name, value) for name, value in named])
        except RuntimeError as exc:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc).splitlines()[0]))

    def _taken(self, tensor):
        """As it lies: an array of the host's memory, or of the GPU's."""
        if tensor.is_cpu():
            return torch.from_numpy(tensor.as_numpy())
        return torch.from_dlpack(tensor.to_dlpack())

    def _given(self, name, value):
        if self.device == "cpu":
            return pb_utils.Tensor(name, np.ascontiguousarray(value.numpy()))
        return pb_utils.Tensor.from_dlpack(name, torch.utils.dlpack.to_dlpack(value.contiguous()))

    def _run(self, given):
        if self.device == "cpu":
            return _tuple(self.call(*given))
        key = tuple(tuple(value.shape) for value in given)
        if key not in self.graphs:
            self.graphs[key] = self._captured(given)
        graph, places, made = self.graphs[key]
        for place, value in zip(places, given, strict=True):
            place.copy_(value, non_blocking=True)
        graph.replay()
        return made

    def _captured(self, given):
        places = [value.to(self.device).contiguous().clone() for value in given]
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                self.call(*places)
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = _tuple(self.call(*places))
        return graph, places, made


def _tuple(made):
    return made if isinstance(made, tuple) else (made,)
