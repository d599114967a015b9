"""PyTorch module -> ONNX with dynamic axes -> what the CPU profile runs; and how far each is from the module."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from serving.errors import SetupError

OPSET = 20
"""17 keeps LayerNormalization one operator, 20 keeps Gelu one: runtimes need not find them again among smaller ones."""

TOLERANCE = 1e-4
"""Largest difference to the module, relative to the output's largest value, that a build accepts."""

GRAPH_BYTES = 1 << 30
"""Weights above this lie beside the graph: a protobuf message ends at 2 GiB."""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """One engine to be: the module, example inputs that fix rank and dtype, and which axes vary.

    `axes`: input -> {axis: name}; equal names are equal sizes. `outputs` in the module's order. `backend`: of the CPU profile.
    `reference`: what the engine is compared with, where the module itself is a rewritten form of it.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    axes: dict[str, dict[int, str]]
    outputs: tuple[str, ...]
    backend: str
    reference: nn.Module | None = None


def to_onnx(part: Part, path: Path) -> None:
    """Write the graph, weights inside, or in `model.onnx.data` beside it where they are large.

    Float32 throughout and strongly typed: TensorRT takes precision from the graph.
    """
    dims = {name: torch.export.Dim(name, min=1, max=4096) for axes in part.axes.values() for name in axes.values()}
    shapes = {name: {axis: dims[dim] for axis, dim in part.axes.get(name, {}).items()} or None for name in part.inputs}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            program = torch.onnx.export(
                part.module.eval(), tuple(part.inputs.values()), None, dynamo=True, opset_version=OPSET,
                input_names=list(part.inputs), output_names=list(part.outputs), dynamic_shapes=shapes, verbose=False,
            )  # fmt: skip
            assert program is not None
            _free_names(program.model.graph, part.outputs)
            program.save(str(path), external_data=_weights_bytes(part.module) > GRAPH_BYTES)
        finally:
            logging.disable(level)


def _weights_bytes(module: nn.Module) -> int:
    return sum(value.nbytes for value in module.state_dict().values())


def _free_names(graph: Any, names: tuple[str, ...]) -> None:
    """Inner values that took an output's name (an `embedding` operator's, say) get another."""
    outputs = {id(value) for value in graph.outputs}
    for node in graph:
        for value in node.outputs:
            if value.name in names and id(value) not in outputs:
                value.name = f"{value.name}_inner"


def to_openvino(onnx_path: Path, xml_path: Path, *, one_image: bool = False) -> None:
    """Write the intermediate representation in float32.

    `one_image`: for one image a call, whatever the ONNX graph takes: for known shapes the CPU plugin makes fewer copies.
    """
    import openvino as ov

    model = ov.convert_model(str(onnx_path))
    if one_image:
        model.reshape({each: [1, *list(each.partial_shape)[1:]] for each in model.inputs})
    ov.save_model(model, str(xml_path), compress_to_fp16=False)


def runner(folder: Path, backend: str) -> Callable[[Arrays], list[npt.NDArray[Any]]]:
    """The engine by the CPU profile's runtime, in this process: inputs -> outputs in graph order."""
    if backend == "openvino":
        import openvino as ov

        compiled = ov.Core().compile_model(str(folder / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        request = compiled.create_infer_request()
        return lambda inputs: [np.array(value) for value in request.infer(inputs).values()]
    import onnxruntime as ort

    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(None, inputs))


def compare(part: Part, folder: Path, samples: list[Arrays], answers: list[Arrays] | None = None) -> dict[str, float]:
    """Largest difference to the module over the samples, per output, with the output's scale.

    `answers`: the module's own, output -> array a sample, where they are known: a ViT-H takes a minute an image.

    Raises SetupError where it is above TOLERANCE of the scale, unless float32's own rounding is as large: then the engine may
    be as far from the module in float64 as twice what the module in float32 is.
    """
    run = runner(folder, part.backend)
    worst: dict[str, float] = {}
    scale: dict[str, float] = {}
    for number, sample in enumerate(samples):
        expected = answers[number] if answers else _answer(part, sample)
        for name, got in zip(part.outputs, run(sample), strict=True):
            want = expected[name]
            worst[name] = float(np.maximum(worst.get(name, 0.0), np.abs(want - got).max()))  # NaN stays
            scale[name] = max(scale.get(name, 0.0), float(np.abs(want).max()))
    found = {**{f"{n}_max_abs": v for n, v in worst.items()}, **{f"{n}_scale": v for n, v in scale.items()}}
    above = [name for name, difference in worst.items() if not difference <= TOLERANCE * scale[name]]
    if above:
        found |= _rounding(part, run, samples)
    for name in above:
        if not found[f"{name}_from_f64"] <= 2 * found[f"{name}_f32_from_f64"]:
            difference = f"{name} by {worst[name]:.1e} at scale {scale[name]:.1e}"
            raise SetupError(f"the built engine differs from PyTorch: {difference}")
    return found


@torch.inference_mode()
def _answer(part: Part, sample: Arrays) -> Arrays:
    """What the module makes of a sample."""
    made = (part.reference or part.module)(*(torch.from_numpy(sample[name]) for name in part.inputs))
    return {name: value.numpy() for name, value in zip(part.outputs, _tuple(made), strict=True)}


def _rounding(part: Part, run: Callable[[Arrays], list[npt.NDArray[Any]]], samples: list[Arrays]) -> dict[str, float]:
    """Largest differences of the engine's and of the module's outputs to the module's in float64."""
    stock = (part.reference or part.module).eval()
    exact = copy.deepcopy(stock).double()
    found: dict[str, float] = {}
    for sample in samples:
        given = [torch.from_numpy(sample[name]) for name in part.inputs]
        with torch.inference_mode():
            single = stock(*given)
            double = exact(*(each.double() if each.is_floating_point() else each for each in given))
        outputs = zip(part.outputs, _tuple(double), _tuple(single), run(sample), strict=True)
        for name, true, rounded, got in outputs:
            for key, value in ((f"{name}_f32_from_f64", rounded.numpy()), (f"{name}_from_f64", got)):
                found[key] = float(np.maximum(found.get(key, 0.0), np.abs(true.numpy() - value).max()))
    return found


def _tuple(made: Any) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


def versions() -> Mapping[str, str]:
    """Of the libraries that a build depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "onnx", "onnxscript", "openvino", "onnxruntime")}
