"""What the card is and the two rates that bound everything: device-to-device copies and bfloat16 matrix products."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from loadtests.gpu.clock import times_ms

PACKAGES = (
    "torch",
    "numpy",
    "onnx",
    "onnxscript",
    "ml_dtypes",
    "protobuf",
    "grpcio",
    "triton",
    "cuda-bindings",
    "opencv-python-headless",
)


def machine(device: str) -> dict[str, Any]:
    """Names and versions."""
    found: dict[str, Any] = {"python": platform.python_version(), "packages": {}}
    for name in PACKAGES:
        try:
            found["packages"][name] = version(name)
        except PackageNotFoundError:
            found["packages"][name] = None
    if device != "cpu":
        query = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        found["gpu"] = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
        props = torch.cuda.get_device_properties(0)
        found |= {"sms": props.multi_processor_count, "capability": f"{props.major}.{props.minor}", "cuda": torch.version.cuda}
        found["cudnn"] = torch.backends.cudnn.version()
    return found


def ceilings(device: str, small: bool) -> dict[str, float]:
    """TB/s of a copy, bytes read and written counted; TFLOP/s of an 8192-cubed product on random values."""
    nbytes, side = (1 << 24, 256) if small else (1 << 32, 8192)
    source = torch.randint(0, 255, (nbytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_ms = times_ms(lambda: target.copy_(source), device)["each_ms"]
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product_ms = times_ms(lambda: a @ b, device)["each_ms"]
    return {"copy_TB_s": round(2 * nbytes / copy_ms / 1e9, 3), "bf16_TFLOP_s": round(2 * side**3 / product_ms / 1e9, 1)}
