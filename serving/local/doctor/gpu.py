"""What this machine has to run TensorRT's engines."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from serving.local.doctor.finding import Finding
from serving.settings import Settings

QUERY = ("--query-gpu=name,compute_cap,driver_version,memory.total", "--format=csv,noheader")
PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
LIBRARIES = (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib/aarch64-linux-gnu"), Path("/usr/local/tensorrt/lib"))
TIMEOUT_S = 20


def gpus(settings: Settings) -> Iterator[Finding]:
    """Each GPU, as NVIDIA's driver tells it; none is no fault, there are engines for CPUs."""
    if shutil.which("nvidia-smi") is None:
        yield Finding("GPU", "none; engines for CPUs are used")
        return
    try:
        told = subprocess.run(["nvidia-smi", *QUERY], capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        remedy = "the driver does not answer: load it, or give the container the GPU (docker: --gpus all)"
        yield Finding("GPU", f"nvidia-smi failed ({type(exc).__name__})", "fail", remedy)
        return
    version = tensorrt_version()
    for line in told.splitlines():
        name, capability, driver, memory = (part.strip() for part in line.split(","))
        yield Finding("GPU", f"{name}, compute capability {capability}, driver {driver}, {memory}")
    if not version:
        yield Finding("TensorRT", "not found", "warn", "install it, or run in NVIDIA's Triton container, to use the GPU")
    else:
        yield Finding("TensorRT", version)


def tensorrt_version() -> str:
    """Of TensorRT here: the Python package's, or the installed library's; empty where there is none."""
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    found = (
        re.search(r"libnvinfer\.so\.(\d+\.\d+\.\d+)$", str(path))
        for place in LIBRARIES
        for path in place.glob("libnvinfer.so.*")
    )
    return next((match[1] for match in found if match), "")
