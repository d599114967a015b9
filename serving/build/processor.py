"""What this processor computes fast: it decides which precisions are tried, and so belongs to what a build was made for."""

from __future__ import annotations

from pathlib import Path

BF16, VNNI = "bf16", "vnni"
"""bfloat16 products, and int8 products in one instruction."""

FLAGS = {BF16: ("avx512_bf16", "amx_bf16"), VNNI: ("avx512_vnni", "avx_vnni", "amx_int8")}
"""Of these, any (Linux, arch/x86/include/asm/cpufeatures.h)."""

CPUINFO = Path("/proc/cpuinfo")


def able(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Which of BF16 and VNNI this processor has: as its flags say, or, where it lists none, as OpenVINO does."""
    words = _flags(cpuinfo)
    if words:
        return frozenset(name for name, any_of in FLAGS.items() if words.intersection(any_of))
    import openvino as ov

    said = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return frozenset({BF16} if "BF16" in said else ())


def _flags(cpuinfo: Path) -> set[str]:
    if not cpuinfo.exists():
        return set()
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    return {word for name, _, words in lines if name.strip() == "flags" for word in words.split()}
