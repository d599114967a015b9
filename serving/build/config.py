"""Triton's configurations, rendered from an engine's spec: `config.pbtxt` for TensorRT, `configs/cpu.pbtxt` for the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serving.build import production
from serving.engines.engine import EngineSpec, TensorSpec

TYPES = production.TYPES
FILES = {"openvino": "model.xml", "onnxruntime": "model.onnx", "tensorrt": "model.plan"}
QUEUE = 64
"""Requests that wait for one engine; one more is refused at once."""
LONGEST_WAIT_US = 30_000_000
"""A request waits no longer, and less where it says so itself."""
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
        *_batching(),
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
    collect = [f"  preferred_batch_size: [ {preferred} ]", "  max_queue_delay_microseconds: 1000"] if preferred else []
    return "\n".join([*lines, *_batching(collect)]) + "\n"


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


def _batching(collect: Sequence[str] = ()) -> list[str]:
    """A bounded queue of two priorities (1, interactive, before 2, bulk) whose requests are refused when their time is over."""
    policy = [
        f"max_queue_size: {QUEUE}",
        "timeout_action: REJECT",
        f"default_timeout_microseconds: {LONGEST_WAIT_US}",
        "allow_timeout_override: true",
    ]
    return [
        "dynamic_batching {",
        *collect,
        "  priority_levels: 2",
        "  default_priority_level: 1",
        "  default_queue_policy {",
        *(f"    {line}" for line in policy),
        "  }",
        "}",
    ]


def _versions() -> list[str]:
    return ["version_policy { all { } }"]


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
