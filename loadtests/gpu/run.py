"""Measure on this machine's GPU: see the package.

python -m loadtests.gpu.run FOLDER --out RESULTS --only machine torch rtx triton
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from loadtests.gpu.ceilings import ceilings, machine
from loadtests.gpu.report import Report

PARTS = ("machine", "torch", "rtx", "triton", "compiled")
"""In the order of their worth; `compiled` is `torch` through torch.compile, which takes minutes."""


def main() -> None:
    """Run the parts that were asked for, each by itself."""
    parser = argparse.ArgumentParser(description="measure the networks on a GPU")
    parser.add_argument("folder", type=Path, help="what loadtests.gpu.prepare wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a rehearsal, its figures mean nothing")
    parser.add_argument("--small", action="store_true", help="smallest sizes")
    parser.add_argument("--budget-s", type=float, default=300, help="no section begins after that many seconds")
    said = parser.parse_args()
    torch.set_num_threads(min(16, torch.get_num_threads()))
    report = Report(said.out / f"{'-'.join(said.only)}.json", said.budget_s)
    if "machine" in said.only:
        report.section("machine", lambda: machine(said.device))
        report.section("ceilings", lambda: ceilings(said.device, said.small))
    if "torch" in said.only:
        from loadtests.gpu import torch_bench

        torch_bench.run(report, said.folder, said.device, said.small)
    if "rtx" in said.only:

        def rtx() -> str:
            from loadtests.gpu import rtx

            rtx.run(report, said.folder, said.small)
            return "ran"

        report.section("rtx", rtx)
    if "triton" in said.only:

        def triton() -> str:
            from loadtests.gpu import through_triton

            through_triton.run(report, said.folder, said.device, said.small)
            return "ran"

        report.section("triton", triton)
    if "compiled" in said.only:
        from loadtests.gpu import torch_bench

        torch_bench.run_compiled(report, said.folder, said.device, said.small)


if __name__ == "__main__":
    main()
