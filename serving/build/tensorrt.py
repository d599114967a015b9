"""ONNX -> a TensorRT plan, by the data-centre package or by TensorRT-RTX, whichever is installed: their Python API is one.

Networks are strongly typed: the plan has the graph's types (`bf16`). TensorRT-RTX builds without a GPU, for every card from
Ampere on that it knows; the data-centre package builds on the card it builds for.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from serving.build.production import Profile, inputs, outputs, profile
from serving.engines.engine import EngineSpec, TensorSpec
from serving.errors import SetupError

PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""Module -> the builder's name, in the order of preference."""

PORTABLE = "portable"
"""A plan for every architecture that TensorRT-RTX knows; it is finished on the card at its first start."""

DTYPES = {"FLOAT": "float32", "INT64": "int64", "INT32": "int32", "UINT8": "uint8", "BF16": "bfloat16", "HALF": "float16"}


@dataclass(frozen=True)
class Builder:
    """An installed TensorRT. `name`: "tensorrt" or "tensorrt-rtx"; `api`: its module."""

    name: str
    version: str
    api: Any

    @property
    def label(self) -> str:
        """For records: ``tensorrt-rtx-1.7``."""
        return f"{self.name}-{'.'.join(self.version.split('.')[:2])}"

    def capability(self) -> str:
        """What plans are built for: "portable", or this GPU's compute capability ("9.0"). Raises SetupError without one."""
        if self.name == "tensorrt-rtx":
            return PORTABLE
        if found := gpu():
            return found
        raise SetupError("TensorRT builds on a GPU and none is here: run this on one, or install the extra tensorrt-rtx")


def installed(names: Sequence[str] = tuple(PACKAGES)) -> Builder:
    """The first that is installed. Raises SetupError."""
    for module in names:
        try:
            api = import_module(module)
        except ImportError:
            continue
        return Builder(PACKAGES[module], str(api.__version__), api)
    where = "in medserve's checkout, pip install -e '.[tensorrt]' on a GPU, '.[tensorrt-rtx]' anywhere"
    raise SetupError(f"no TensorRT is installed: {where}")


def gpu() -> str:
    """The compute capability of the first GPU ("9.0"), or "" where there is none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""


def build(builder: Builder, graph: bytes, spec: EngineSpec, shapes: Profile | None = None) -> bytes:
    """The plan of an ONNX graph for a spec. Raises SetupError: what does not parse, another interface, what does not build."""
    api = builder.api
    log = _log(api)
    maker = api.Builder(log)
    network = maker.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = api.OnnxParser(network, log)
    if not parser.parse(graph):
        raise SetupError(f"{spec.name}: {builder.label} does not take the graph: {parser.get_error(0).desc()[:200]}")
    check(spec, *_interface(network))
    config = maker.create_builder_config()
    config.clear_flag(api.BuilderFlag.TF32)  # what the record calls f32 is f32: the gate has not judged less
    config.add_optimization_profile(_profile(maker, network, shapes or profile(spec)))
    plan = maker.build_serialized_network(network, config)
    if plan is None:
        raise SetupError(f"{spec.name} does not build with {builder.label}: {log.last[:200] or 'no reason given'}")
    return bytes(plan)


def check(spec: EngineSpec, given: Sequence[TensorSpec], made: Sequence[TensorSpec]) -> None:
    """Compare a network's inputs and outputs (batch axis counted) with the spec. Raises SetupError: the first difference."""
    for kind, wanted, found in (("input", inputs(spec), given), ("output", outputs(spec), made)):
        by_name = {tensor.name: tensor for tensor in found}
        if extra := sorted(set(by_name) - {tensor.name for tensor in wanted}):
            raise SetupError(f"{spec.name}: the graph has an {kind} {extra[0]} that the configuration has not")
        for tensor in wanted:
            one = by_name.get(tensor.name)
            if one is None:
                raise SetupError(f"{spec.name}: the graph has no {kind} {tensor.name}")
            batched = spec.max_batch == 1 or one.shape[0] == -1
            if one.dtype != tensor.dtype or one.shape[1:] != tensor.shape or not batched:
                have, want = f"{one.dtype} {one.shape}", f"{tensor.dtype} {(-1 if spec.max_batch > 1 else 1, *tensor.shape)}"
                raise SetupError(f"{spec.name}: {kind} {tensor.name} is {have} in the graph and {want} in the configuration")


def _interface(network: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs with their batch axes."""
    given = [_tensor(network.get_input(n)) for n in range(network.num_inputs)]
    return given, [_tensor(network.get_output(n)) for n in range(network.num_outputs)]


def _tensor(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, DTYPES.get(tensor.dtype.name, tensor.dtype.name), tuple(tensor.shape))


def _profile(maker: Any, network: Any, shapes: Profile) -> Any:
    """Only sizes that are open in the network are asked for."""
    made = maker.create_optimization_profile()
    for n in range(network.num_inputs):
        tensor = network.get_input(n)
        if -1 in tuple(tensor.shape):
            made.set_shape(tensor.name, *(_where_open(tuple(tensor.shape), wanted) for wanted in shapes[tensor.name]))
    return made


def _where_open(shape: Sequence[int], wanted: Sequence[int]) -> list[int]:
    return [size if own == -1 else own for own, size in zip(shape, wanted, strict=True)]


def _log(api: Any) -> Any:
    """Keeps the last error; prints nothing."""

    class Log(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.Severity.ERROR, api.ILogger.Severity.INTERNAL_ERROR):
                self.last = message

    return Log()
