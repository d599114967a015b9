"""Triton's configurations, rendered from an engine's spec: `config.pbtxt` for TensorRT, `configs/cpu.pbtxt` for the CPU."""

from __future__ import annotations

from pathlib import Path

from serving.engines.engine import EngineSpec, TensorSpec

TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "int32": "TYPE_INT32", "uint8": "TYPE_UINT8"}
FILES = {"openvino": "model.xml", "onnxruntime": "model.onnx", "tensorrt": "model.plan"}
CPU_QUEUE = 64
GPU_QUEUE = 256


def write(folder: Path, spec: EngineSpec, backend: str) -> None:
    """Both files of one engine, left alone where they already say the same."""
    for path, text in ((folder / "config.pbtxt", tensorrt(spec)), (folder / "configs" / "cpu.pbtxt", cpu(spec, backend))):
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def cpu(spec: EngineSpec, backend: str) -> str:
    """One instance with all cores, no waiting for batches (on a CPU they gain little), exact float32."""
    lines = [*_head(spec, backend), "instance_group [{ kind: KIND_CPU count: 1 }]", *_versions()]
    if spec.max_batch:
        lines += ["dynamic_batching {", f"  default_queue_policy {{ max_queue_size: {CPU_QUEUE} }}", *_priorities(), "}"]
    if backend == "openvino":
        lines += [_parameter("INFERENCE_PRECISION_HINT", "f32"), _parameter("INFERENCE_NUM_THREADS", "0")]
    else:
        lines += [_parameter("intra_op_thread_count", "0")]
    return "\n".join(lines) + "\n"


def tensorrt(spec: EngineSpec) -> str:
    """One instance a GPU; where the model takes batches, they are collected for up to a millisecond."""
    lines = [*_head(spec, "tensorrt"), "instance_group [{ kind: KIND_GPU count: 1 }]", *_versions()]
    if spec.max_batch:
        preferred = ", ".join(str(n) for n in (2, 4, 8, 16, 32) if n <= spec.max_batch)
        lines += [
            "dynamic_batching {",
            f"  preferred_batch_size: [ {preferred} ]",
            "  max_queue_delay_microseconds: 1000",
            f"  default_queue_policy {{ max_queue_size: {GPU_QUEUE} }}",
            *_priorities(),
            "}",
        ]
    return "\n".join(lines) + "\n"


def _head(spec: EngineSpec, backend: str) -> list[str]:
    return [
        f'name: "{spec.name}"',
        f'backend: "{backend}"',
        f'default_model_filename: "{FILES[backend]}"',
        f"max_batch_size: {spec.max_batch}",
        *_tensors("input", spec.inputs),
        *_tensors("output", spec.outputs),
    ]


def _tensors(kind: str, tensors: tuple[TensorSpec, ...]) -> list[str]:
    rows = [f'  {{ name: "{t.name}" data_type: {TYPES[t.dtype]} dims: {list(t.shape)} }}' for t in tensors]
    return [f"{kind} [", ",\n".join(rows), "]"]


def _priorities() -> list[str]:
    return ["  priority_levels: 2", "  default_priority_level: 1"]


def _versions() -> list[str]:
    return ["version_policy { all { } }"]


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
