"""Checks of this machine, each finding with what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.errors import SetupError
from serving.local.ports import require_free
from serving.local.triton import MIN_SHM_BYTES
from serving.manifest import read_all
from serving.settings import Settings

MIN_MEMORY_BYTES = 5 * 1024**3
PACKAGES = ("ray", "tritonclient", "nvidia-pytriton", "numpy", "openvino", "onnxruntime", "grpcio", "prometheus-client")


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, what was found, and, where it is bad, what to do."""

    what: str
    found: str
    remedy: str = ""

    @property
    def bad(self) -> bool:
        """Whether something has to be done."""
        return bool(self.remedy)

    def line(self) -> str:
        """As printed."""
        return f"[{'!!' if self.bad else 'ok'}] {self.what}: {self.found}" + (f" - {self.remedy}" if self.bad else "")


def examine(settings: Settings) -> tuple[Finding, ...]:
    """Every check, in the order in which they matter."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (_python, _packages, _memory, _ports, _models)
    return tuple(finding for check in checks for finding in check(settings))


def _python(settings: Settings) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", found, "" if sys.version_info[:2] == (3, 11) else "use Python 3.11: Triton's stub is built for it")


def _packages(settings: Settings) -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "not installed", "run `make setup`")
            continue
        wrong = name == "numpy" and int(version.split(".")[0]) >= 2
        yield Finding(name, version, "install numpy below 2: the embedded Triton returns garbage with it" if wrong else "")


def _memory(settings: Settings) -> Iterator[Finding]:
    shm = shutil.disk_usage("/dev/shm").free
    need = settings.features.budget_bytes + MIN_SHM_BYTES
    remedy = "" if shm >= need else f"give at least {need >> 20} MiB (docker: --shm-size), or lower features.budget_bytes"
    yield Finding("/dev/shm", f"{shm >> 20} MiB free", remedy)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("memory", f"{memory >> 30} GiB", "" if memory >= MIN_MEMORY_BYTES else "at least 5 GiB are needed")


def _ports(settings: Settings) -> Iterator[Finding]:
    for port, what in ((settings.http.port, "HTTP"), (settings.grpc.port, "gRPC")):
        if not port:
            continue
        try:
            require_free(port, what)
            yield Finding(f"port {port} for {what}", "free")
        except SetupError:
            yield Finding(
                f"port {port} for {what}", "taken", "is medserve up already? else choose another port in the settings"
            )


def _models(settings: Settings) -> Iterator[Finding]:
    repository: Path = settings.repository.path
    try:
        for manifest in read_all(repository, settings.repository.models):
            missing = [
                e.name for parts in manifest.engines.values() for e in parts if not (repository / e.name / e.version).is_dir()
            ]
            remedy = f"build it again: `medserve models build {manifest.model}`" if missing else ""
            yield Finding(f"model {manifest.model}", f"{manifest.precision}, {manifest.licence}", remedy)
    except SetupError as exc:
        yield Finding("models", "none to serve", str(exc))
