"""The engines of one checkpoint: exported, compared with PyTorch, through the precision gate, and only then put in place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from serving.build import config, export, precision, weights
from serving.build.gate import Arrays
from serving.build.parts import Parts
from serving.build.precision import Choice
from serving.build.weights import Say
from serving.engines import selfcheck
from serving.engines.engine import EngineSpec, TensorSpec
from serving.manifest import EngineRecord

F32 = "f32"
PARITY = {"kind": "parity", "passed": True}
"""Of a part that is not lowered: `export.compare` with PyTorch is its gate."""

Gate = Callable[[Mapping[str, Path]], Mapping[str, Choice]]
"""Folders by part -> the precision that parts got; their folders hold it then. Raises SetupError."""

RANGES: Mapping[str, tuple[float, float]] = {
    "image": (0, 1),
    "pixels": (-2, 2),
    "points": (0, 256),
    "labels": (2, 4),
    "logits": (-8, 8),
    "earlier": (0, 1),
    "tokens": (1, 32),
}
"""Of a self-check's inputs, by name: least value, and greatest (integers: the one after it). Labels: a box's corners."""

FREE = {"tokens": 16}
"""Size of an axis that may have any, 2 where not said."""


def deploy(
    parts: Parts, specs: Mapping[str, EngineSpec], repository: Path, version: str, gate: Gate | None, say: Say
) -> dict[str, EngineRecord]:
    """part -> record. All parts are made in a temporary folder and pass, or none is put into the repository.

    `gate`: of the family, where it has one. Raises SetupError where an engine is not good enough.
    """
    repository.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=repository))
    try:
        folders = {part: work / spec.name / version for part, spec in specs.items()}
        parity = {}
        for part, spec in specs.items():
            say(f"building {spec.name}")
            parity[part] = _export(parts, part, folders[part], one_image=bool(spec.writes))
        choices: Mapping[str, Choice] = {}
        if gate is not None:
            say("the precision gate: real images, each engine against float32")
            choices = gate(folders)
        _store_selfchecks(specs, folders)
        records = {}
        for part, spec in specs.items():
            records[part] = _record(spec.name, version, folders[part], parity[part], choices.get(part))
        for part, spec in specs.items():
            _put(folders[part], repository / spec.name / version)
            config.write(repository / spec.name, spec, parts.parts[part].backend)
        return records
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _export(parts: Parts, name: str, folder: Path, *, one_image: bool) -> dict[str, float]:
    """`one_image`: what writes into the arena gets one image a call (one slot) on a CPU; the ONNX graph is a GPU's, too."""
    part = parts.parts[name]
    folder.mkdir(parents=True)
    export.to_onnx(part, folder / "model.onnx")
    if part.backend == "openvino":
        export.to_openvino(folder / "model.onnx", folder / "model.xml", one_image=one_image)
    return export.compare(part, folder, parts.samples[name], parts.answers.get(name))


def _record(name: str, version: str, folder: Path, parity: dict[str, float], choice: Choice | None) -> EngineRecord:
    weighty = folder / "model.bin"
    return EngineRecord(
        name=name,
        version=version,
        digest=weights.digest(weighty if weighty.exists() else folder / "model.onnx"),
        precision=choice.precision if choice else F32,
        parity=parity,
        gate=choice.gate if choice else PARITY,
    )


def _store_selfchecks(specs: Mapping[str, EngineSpec], folders: Mapping[str, Path]) -> None:
    """Beside each engine what it answers as it is deployed; the engines that write Features go first.

    None beside one that takes tensors of which nothing is known here.
    """
    features: Arrays = {}
    for part, spec in sorted(specs.items(), key=lambda each: not each[1].writes):
        if not all(map(_known, spec.inputs)) or not all(tensor.name in features for tensor in spec.reads):
            continue
        inputs = [_drawn(tensor) for tensor in spec.inputs]
        folder = folders[part]
        engine = precision.open_openvino(folder) if (folder / "model.xml").exists() else precision.open_onnx(folder)
        made = engine({**selfcheck.draw(inputs), **{tensor.name: features[tensor.name] for tensor in spec.reads}})
        features.update({tensor.name: made[tensor.name] for tensor in spec.writes})
        selfcheck.save(folder / selfcheck.FILE, inputs, made)


def _known(tensor: TensorSpec) -> bool:
    return tensor.name in RANGES


def _drawn(tensor: TensorSpec) -> selfcheck.Input:
    shape = (1, *(FREE.get(tensor.name, 2) if size < 0 else size for size in tensor.shape))
    return tensor.name, tensor.dtype, shape, *RANGES[tensor.name]


def _put(made: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    made.chmod(0o755)
    made.replace(target)
