"""Triton's configurations, rendered from an engine's spec: `config.pbtxt` for TensorRT, `configs/cpu.pbtxt` for the CPU.

No queue policy (a bound, priorities, a timeout): with any, Triton's batcher does not look ahead, and a call that comes while
the instance works lies for up to half a second after it is done (docs/decisions/0011). `engines.line` does all of that.
"""

from __future__ import annotations

from pathlib import Path

from serving.build import production
from serving.engines.engine import EngineSpec, TensorSpec

TYPES = production.TYPES
FILES = {"openvino": "model.xml", "onnxruntime": "model.onnx", "tensorrt": "model.plan"}
ENCODER_NICE = 10
"""On the CPU an encode yields to decodes, which are short and waited for; never wholly, or new images would starve."""
SLOT = "slot"
"""On the CPU Features are named by their slot of the arena (index, generation); a GPU's engine gets them as tensors."""


def write(folder: Path, spec: EngineSpec, backend: str) -> None:
    """Both files of one engine, left alone where they already say the same."""
    for path, text in ((folder / "config.pbtxt", tensorrt(spec)), (folder / "configs" / "cpu.pbtxt", cpu(spec, backend))):
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def cpu(spec: EngineSpec, backend: str) -> str:
    """One instance with all cores in a process of its own, no waiting for batches (on a CPU they gain little)."""
    name = (TensorSpec(SLOT, "int64", (2,)),) if spec.reads or spec.writes else ()
    lines = [
        *_head(spec, backend, (*spec.inputs, *name), (*spec.outputs, *(name if spec.writes else ()))),
        "instance_group [{ kind: KIND_CPU count: 1 }]",
        *_versions(),
        *(["dynamic_batching { }"] if spec.max_batch > 1 else []),
    ]
    if spec.reads or spec.writes:
        lines += [_parameter("READS", ",".join(t.name for t in spec.reads))] if spec.reads else []
        lines += [_parameter("WRITES", ",".join(t.name for t in spec.writes))] if spec.writes else []
    if spec.name.endswith("image_encoder"):
        lines += [_parameter("NICE", str(ENCODER_NICE))]
    return "\n".join(lines) + "\n"


def tensorrt(spec: EngineSpec) -> str:
    """One instance a GPU; where the model takes batches, they are collected for up to a millisecond."""
    lines = [
        *_head(spec, "tensorrt", (*spec.reads, *spec.inputs), (*spec.writes, *spec.outputs)),
        "instance_group [{ kind: KIND_GPU count: 1 }]",
        *_versions(),
        *production.cuda_graphs(spec),
        *production.warm_up(spec),
    ]
    preferred = ", ".join(str(n) for n in (2, 4, 8, 16, 32) if n <= spec.max_batch)
    if preferred:
        lines += [
            "dynamic_batching {",
            f"  preferred_batch_size: [ {preferred} ]",
            "  max_queue_delay_microseconds: 1000",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _head(spec: EngineSpec, backend: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> list[str]:
    return [
        f'name: "{spec.name}"',
        f'backend: "{backend}"',
        f'default_model_filename: "{FILES[backend]}"',
        f"max_batch_size: {spec.max_batch}",
        *_tensors("input", inputs),
        *_tensors("output", outputs),
    ]


def _tensors(kind: str, tensors: tuple[TensorSpec, ...]) -> list[str]:
    rows = [f'  {{ name: "{t.name}" data_type: {TYPES[t.dtype]} dims: {list(t.shape)} }}' for t in tensors]
    return [f"{kind} [", ",\n".join(rows), "]"]


def _versions() -> list[str]:
    return ["version_policy { all { } }"]


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
