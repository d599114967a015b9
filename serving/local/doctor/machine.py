"""Checks of this machine: can it serve with these settings? One function a check."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from serving import shm
from serving.errors import SetupError
from serving.local.doctor.engines import engines
from serving.local.doctor.finding import Finding, judged
from serving.local.doctor.gpu import gpus
from serving.local.doctor.reach import triton_state
from serving.local.ports import require_free, span
from serving.local.triton import MIN_SHM_BYTES, binary_path
from serving.settings import CHECKOUT, Settings

MIN_MEMORY_BYTES = 5 * 1024**3
MIN_DISK_BYTES = 2 * 1024**3
PACKAGES = (
    "ray", "tritonclient", "nvidia-pytriton", "numpy", "openvino", "onnxruntime", "grpcio", "protobuf", "prometheus-client",
    "fastapi", "pydicom",
)  # fmt: skip
PINS = CHECKOUT / "constraints.txt"
UNSYNCHRONISED = 5
"""adjtimex(2), TIME_ERROR."""
TIMEX_BYTES = 1024
"""More than a struct timex is on any system; with modes 0 the call only reads."""


def examine(settings: Settings) -> tuple[Finding, ...]:
    """Every check, in the order in which they matter."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        python, packages, triton, shared_memory, memory, disk, ports, clock, gpus, engines,
    )  # fmt: skip
    return tuple(finding for check in checks for finding in check(settings))


def python(settings: Settings) -> Iterator[Finding]:
    """The interpreter: the embedded Triton brings its stub for one version only."""
    found = ".".join(map(str, sys.version_info[:3]))
    yield judged("Python", found, sys.version_info[:2] == (3, 11), "use Python 3.11: Triton's stub is built for it")


def packages(settings: Settings, names: tuple[str, ...] = PACKAGES, pins: Path = PINS) -> Iterator[Finding]:
    """What is installed, beside what is pinned."""
    wanted = _pinned(pins)
    for name in names:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "not installed", "fail", "run `make setup`")
            continue
        if name == "numpy" and int(version.split(".")[0]) >= 2:
            yield Finding(name, version, "fail", "install numpy below 2: the embedded Triton returns garbage with it")
            continue
        pin = wanted.get(name, version)
        yield judged(name, version, version == pin, f"{pin} is what was tested: run `make setup`", "warn")


def triton(settings: Settings) -> Iterator[Finding]:
    """The server's program, or the address of one that somebody else runs."""
    if settings.triton.address:
        yield _elsewhere(settings.triton.address)
        return
    try:
        program = binary_path()
    except SetupError as exc:
        yield Finding("Triton", "not installed", "fail", str(exc))
        return
    yield judged("Triton", "embedded", os.access(program, os.X_OK), "its program is missing or may not run: `make setup`")


def _elsewhere(address: str) -> Finding:
    """Whether the Triton that somebody else runs is ready."""
    found = triton_state(address)
    remedy = "start it, or correct triton.address (its gRPC port); what keeps it from being ready is in its log"
    return judged("Triton", f"not started here; at {address}: {found}", found == "ready", remedy)


def shared_memory(settings: Settings) -> Iterator[Finding]:
    """Room for the Features' arena and for Triton's own regions; the arena itself, where it is there already."""
    region = settings.features.region
    if region and (shm.ROOT / region).exists():
        size, budget = (shm.ROOT / region).stat().st_size, settings.features.budget_bytes
        remedy = f"features.budget_bytes is {budget >> 20} MiB by now: stop what uses it, and prepare the node again"
        yield judged("Features' arena", f"{region}, {size >> 20} MiB", size >= budget, remedy, "warn")
        return
    free = shutil.disk_usage(shm.ROOT).free
    need = settings.features.budget_bytes + MIN_SHM_BYTES
    more = "docker: --shm-size; Kubernetes: the chart sizes it by settings.features.budget_bytes"
    remedy = f"give at least {need >> 20} MiB ({more}), or lower features.budget_bytes"
    yield judged("/dev/shm", f"{free >> 20} MiB free", free >= need, remedy)


def memory(settings: Settings) -> Iterator[Finding]:
    """The machine's memory."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield judged("memory", f"{found >> 30} GiB", found >= MIN_MEMORY_BYTES, "at least 5 GiB are needed")


def disk(settings: Settings) -> Iterator[Finding]:
    """Room where weights and logs go, and where the engines lie."""
    for what, place in (("disk of the home folder", settings.home), ("disk of the model repository", settings.repository.path)):
        there = next(each for each in (place, *place.parents) if each.exists())
        free = shutil.disk_usage(there).free
        yield judged(what, f"{free >> 20} MiB free", free >= MIN_DISK_BYTES, "free 2 GiB: building and logging need it", "warn")


def ports(settings: Settings) -> Iterator[Finding]:
    """The two public ports, and the range from which the inner ones are taken."""
    for port, what in ((settings.http.port, "HTTP"), (settings.grpc.port, "gRPC")):
        if not port:
            continue
        try:
            require_free(port, what)
            yield Finding(f"port {port} for {what}", "free")
        except SetupError:
            remedy = "is medserve up already? else choose another port in the settings"
            yield Finding(f"port {port} for {what}", "taken", "fail", remedy)
    inner = span()
    yield Finding("inner ports", f"from {inner.start} to {inner.stop - 1}, below those of outgoing connections")


def clock(settings: Settings) -> Iterator[Finding]:
    """Whether something keeps the clock right: logs and traces of several nodes are read side by side."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    well = state != UNSYNCHRONISED
    yield judged("clock", found, well, "nothing synchronises it: run an NTP client (chrony) on the host", "warn")


def _pinned(path: Path) -> dict[str, str]:
    """Package -> version of a file of constraints; empty where there is none, as in an installed wheel."""
    if not path.exists():
        return {}
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(), flags=re.MULTILINE))
