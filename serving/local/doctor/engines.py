"""Checks of the built engines against their records and this machine's libraries."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from serving.errors import SetupError
from serving.local.doctor.finding import Finding, judged
from serving.local.doctor.gpu import tensorrt_version
from serving.manifest import Manifest, read_all
from serving.settings import Settings

RUNTIMES = ("openvino", "onnxruntime")
PLAN = "model.plan"
BUILDER = re.compile(r"^tensorrt[-_](?:rtx[-_])?(\d[\w.+]*)$", re.IGNORECASE)


def engines(settings: Settings) -> Iterator[Finding]:
    """Every built model: whether its engines are there, were built by the libraries that run them, and not in the future."""
    try:
        built = read_all(settings.repository.path, settings.repository.models)
    except SetupError as exc:
        yield Finding("models", "none to serve", "fail", str(exc))
        return
    for manifest in built:
        yield _model(manifest, settings)


def _model(manifest: Manifest, settings: Settings) -> Finding:
    what, again = f"model {manifest.model}", f"build it again: `medserve models build {manifest.model}`"
    folders = [settings.repository.path / e.name / e.version for parts in manifest.engines.values() for e in parts]
    missing = [folder.parent.name for folder in folders if not _whole(folder)]
    if missing:
        return Finding(what, f"engine {missing[0]} is missing or incomplete", "fail", again)
    if any((folder / PLAN).exists() for folder in folders):
        wrong = tensorrt_mismatch(manifest.versions, tensorrt_version())
        if wrong:
            return Finding(what, wrong, "fail", f"a plan runs only with the version that built it: {again}")
    precisions = sorted({e.precision for parts in manifest.engines.values() for e in parts})
    found = f"{len(folders)} engines, {'/'.join(precisions)}, {manifest.licence}"
    if _from_the_future(manifest.built_at):
        return Finding(what, f"{found}; built at {manifest.built_at}, later than now", "warn", "set this machine's clock")
    changed = changed_runtimes(manifest.versions)
    return judged(what, f"{found}{changed}", not changed, f"they may answer otherwise: {again}", "warn")


def _whole(folder: Path) -> bool:
    """Whether an engine's files are there, none empty; OpenVINO's are two."""
    files = {each.name: each.stat().st_size for each in folder.glob("model.*")}
    return bool(files) and all(files.values()) and ("model.xml" in files) == ("model.bin" in files)


def tensorrt_mismatch(versions: Mapping[str, str], here: str) -> str:
    """What is wrong between a plan's builder and this machine's TensorRT; empty where they agree.

    A builder is told as ``{"tensorrt": "10.1.0"}`` or by a name such as "tensorrt-10.1". As many parts of the versions are
    compared as both have, two at least.
    """
    built = builder_version(versions)
    if not built:
        return "its record does not say which TensorRT built its plans"
    if not here:
        return f"TensorRT {built} built its plans, and none is found here"
    ours, its = here.split("."), built.split(".")
    same = min(len(ours), len(its), 3)
    return "" if ours[:same] == its[:same] and same >= 2 else f"TensorRT {built} built its plans, and {here} is here"


def builder_version(versions: Mapping[str, str]) -> str:
    """Of the TensorRT that built a model's plans; empty where its record does not say."""
    if given := versions.get("tensorrt"):
        named = BUILDER.match(given)
        return named[1] if named else given
    return next((found[1] for value in versions.values() if (found := BUILDER.match(value))), "")


def changed_runtimes(versions: Mapping[str, str]) -> str:
    """Which libraries are here in another version than at the build, as a clause; empty where none is."""
    said = ""
    for name in RUNTIMES:
        with suppress(importlib.metadata.PackageNotFoundError):  # `packages` says that it is missing
            here = importlib.metadata.version(name)
            if versions.get(name, here) != here:
                said += f"; built with {name} {versions[name]}, {here} is here"
    return said


def _from_the_future(built_at: str) -> bool:
    with suppress(ValueError):
        return datetime.fromisoformat(built_at) > datetime.now(UTC)
    return False
