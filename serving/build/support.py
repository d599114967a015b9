"""`medserve models support`: labelled volumes -> a support set, through the built engine in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from serving.build.weights import Say
from serving.domain.volume import EncodedVolume
from serving.errors import Fault, SetupError
from serving.families.medlsam import engines, supports
from serving.families.medlsam.supports import Floats, SupportSet
from serving.imaging import volumes
from serving.imaging.volume import Volume
from serving.manifest import Manifest, read_all
from serving.settings import Settings

FAMILY = "medlsam"


def make(
    name: str,
    model: str,
    images: Sequence[Path],
    labels: Sequence[Path],
    classes: Sequence[str],
    settings: Settings,
    *,
    mode: str = "wpl",
    interval: int = 2,
    say: Say,
) -> Path:
    """Images and label maps in the same order; `classes`: NAME=LABEL each. Gives the set's file. Raises SetupError."""
    if not images or len(images) != len(labels):
        raise SetupError(f"{len(images)} images and {len(labels)} label maps: give one label map for each image, in order")
    if mode not in supports.MODES or interval < 1:
        raise SetupError(f"mode is one of {', '.join(supports.MODES)}, interval 1 or more")
    numbers = numbers_of(classes)
    manifest = _model(model, settings)
    try:
        path = supports.path_of(settings.support_sets(), name)
        pairs = []
        for image, label in zip(images, labels, strict=True):
            say(f"reading {image.name}")
            pairs.append(_pair(_read(image, settings), _read(label, settings), image.name))
    except Fault as fault:
        raise SetupError(fault.message) from fault
    say(f"describing {', '.join(numbers)} in {len(pairs)} volumes")
    structures = supports.make(pairs, numbers, mode, interval, _describe(manifest, settings.repository.path))
    supports.write(path, SupportSet(manifest.digest, mode, structures))
    return path


def numbers_of(classes: Sequence[str]) -> dict[str, int]:
    """NAME=LABEL each -> name -> label. Raises SetupError."""
    found: dict[str, int] = {}
    for text in classes:
        name, _, label = text.rpartition("=")
        if not name.strip() or not label.isdecimal() or int(label) < 1 or name in found:
            raise SetupError(f"--class {text}: say NAME=LABEL with a label from 1, each name once")
        found[name] = int(label)
    if not found:
        raise SetupError("no class: say --class NAME=LABEL, at least once")
    return found


def _model(name: str, settings: Settings) -> Manifest:
    (manifest,) = read_all(settings.repository.path, (name,))
    if manifest.family != FAMILY:
        raise SetupError(f"model {name} is of family {manifest.family}, which takes no support sets")
    return manifest


def _read(path: Path, settings: Settings) -> Volume:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise SetupError(f"{path}: {exc.strerror}") from exc
    return volumes.read(EncodedVolume((data,)), settings.limits, settings.volumes)


def _pair(image: Volume, label: Volume, name: str) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.int32]]]:
    same = image.affine is not None and label.affine is not None and np.allclose(image.affine, label.affine, atol=1e-3)
    if image.samples.shape != label.samples.shape or not same:
        raise SetupError(f"{name} and its label map do not have the same size and place in space")
    return supports.prepared(image)[0], supports.prepared_labels(label)


def _describe(manifest: Manifest, repository: Path) -> supports.Describe:
    from serving.build import export

    spec, record = engines.specs(manifest)["describe"], manifest.engines["describe"][0]
    folder = repository / record.name / record.version
    if not (folder / "model.onnx").is_file():
        raise SetupError(f"{record.name} is not built for the CPU: `medserve models build {manifest.family}`")
    run = export.runner(folder, "onnxruntime")
    names = [tensor.name for tensor in spec.outputs]

    def describe(patch: Floats) -> Mapping[str, Floats]:
        return dict(zip(names, run({"patch": patch}), strict=True))

    return describe
