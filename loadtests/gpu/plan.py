"""A TensorRT plan on this GPU, fed from PyTorch's tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from serving.build import tensorrt

TYPES = {"FLOAT": torch.float32, "INT64": torch.int64, "BF16": torch.bfloat16, "INT32": torch.int32}


class Plan:
    """A plan, ready to run: inputs by name in, outputs by name out, on PyTorch's current stream."""

    def __init__(self, builder: tensorrt.Builder, plan: bytes) -> None:
        api = builder.api
        self.said: list[str] = []
        self._runtime = api.Runtime(_log(api, self.said))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise RuntimeError(f"the plan is not taken here: {self.said[-5:]}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeError(f"no execution context: {self.said[-5:]}")
        names = [self._engine.get_tensor_name(n) for n in range(self._engine.num_io_tensors)]
        given = api.TensorIOMode.INPUT
        self.inputs = [name for name in names if self._engine.get_tensor_mode(name) == given]
        self.outputs = [name for name in names if self._engine.get_tensor_mode(name) != given]
        self._made: dict[tuple[Any, ...], dict[str, Tensor]] = {}

    def __call__(self, **given: Tensor) -> dict[str, Tensor]:
        """Outputs of one shape of inputs are the same memory at each call."""
        for name in self.inputs:
            self._context.set_input_shape(name, tuple(given[name].shape))
            self._context.set_tensor_address(name, given[name].data_ptr())
        key = tuple(tuple(given[name].shape) for name in self.inputs)
        if key not in self._made:
            self._made[key] = {name: self._output(name) for name in self.outputs}
        for name, value in self._made[key].items():
            self._context.set_tensor_address(name, value.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError(f"the plan does not run: {self.said[-5:]}")
        return self._made[key]

    def _output(self, name: str) -> Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=1) < 0:
            raise RuntimeError(f"{name} has no shape yet: {shape}, {self.said[-5:]}")
        return torch.empty(shape, dtype=TYPES[self._engine.get_tensor_dtype(name).name], device="cuda")


def _log(api: Any, said: list[str]) -> Any:
    class Log(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.Severity.ERROR, api.ILogger.Severity.INTERNAL_ERROR, api.ILogger.Severity.WARNING):
                said.append(f"{severity}: {message}"[:400])

    return Log()
