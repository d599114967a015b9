"""What a simulated node's containers have of the cores: CPU groups with weights, where this machine lets us make them.

Without them all of a cluster's Ray processes are one group to the kernel (they share a session) and each Triton another: a
replica that starts on one node would take its core from the router of another. In Kubernetes a pod's containers are groups,
weighted by what they request; the weights here are in the proportion of the chart's requests.
"""

import time
from contextlib import suppress
from pathlib import Path

from running import descendants

ROOT = Path("/sys/fs/cgroup/cpu")
PREFIX = "medserve-nodes"
HEAD, RAY, TRITON = 1024, 512, 1024
"""Weights: the head with the front, a node's Ray, a node's Triton. An ordinary session of this machine has 1024."""
GONE_S = 10


class Shares:
    """The groups of one cluster. Where they cannot be made (no cgroup v1, no right) nothing is done."""

    def __init__(self, pid):
        self._prefix = f"{PREFIX}-{pid}-"
        self._pid = pid

    def give(self, name, weight, pids):
        """These processes and what they have started, and what they will start, are a group."""
        group = ROOT / f"{self._prefix}{name}"
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            (group / "cpu.shares").write_text(str(weight))
            for pid in [one for each in pids for one in (each, *descendants(each))]:
                with suppress(ProcessLookupError):
                    (group / "cgroup.procs").write_text(str(pid))

    def remove(self):
        """When their processes are gone."""
        until = time.monotonic() + GONE_S
        while (left := list(ROOT.glob(f"{self._prefix}*"))) and time.monotonic() < until:
            for group in left:
                with suppress(OSError):
                    group.rmdir()
            time.sleep(0.1)
