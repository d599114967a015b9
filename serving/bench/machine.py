"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from serving import __version__

PACKAGES = ("ray", "openvino", "onnxruntime", "nvidia-pytriton", "tritonclient", "grpcio", "uvloop", "numpy", "locust")


def describe() -> dict[str, str]:
    """Name -> value, in the order of the page."""
    found = {
        "processor": _cpu(),
        "cores": f"{len(os.sched_getaffinity(0))}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "medserve": f"{__version__} {_commit()}".strip(),
        "load before": " ".join(f"{each:.2f}" for each in os.getloadavg()),
        "measured": time.strftime("%F %H:%M UTC", time.gmtime()),
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = named.get("flags", "").split()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{named.get('model name', 'unknown')} (family {named.get('cpu family', '?')}; {', '.join(wide)})"


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
