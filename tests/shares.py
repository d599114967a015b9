"""What a simulated node's containers have of the cores: CPU groups, weighted and limited, where this machine lets us make them.

Without them all of a cluster's Ray processes are one group to the kernel (they share a session) and each Triton another: a
replica that starts on one node would take its core from the router of another. In Kubernetes a pod's containers are groups,
weighted by what they request; the weights here are in the proportion of the chart's requests. A node with a limit
(`resources.limits.cpu`) has no more than that, whatever the others leave: as a machine of its own has.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from running import descendants

ROOT = Path("/sys/fs/cgroup/cpu")
PREFIX = "medserve-nodes"
HEAD, RAY, TRITON = 1024, 512, 1024
"""Weights: the head with the front, a node's Ray, a node's Triton. An ordinary session of this machine has 1024."""
PERIOD_US = 100_000
"""In which a limit is counted: the kubelet's default."""
GONE_S = 10


class Shares:
    """The groups of one cluster: `head`, and one a node with its Ray and its Triton in it.

    Where they cannot be made (no cgroup v1, no right) nothing is done, unless a limit is asked for.
    """

    @staticmethod
    def can_limit():
        """Whether nodes can have limits here."""
        return (ROOT / "cpu.cfs_quota_us").exists() and os.access(ROOT, os.W_OK)

    def __init__(self, pid):
        self._prefix = f"{PREFIX}-{pid}-"

    def node(self, number):
        """A group for a node."""
        group = self._group(number)
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            (group / "cpu.shares").write_text(str(RAY + TRITON))

    def limit(self, number, cores):
        """A node has no more than this of the cores from now on. Raises OSError where there are no limits."""
        group = self._group(number)
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(int(cores * PERIOD_US)))

    def give(self, name, weight, pids):
        """These processes and what they have started, and what they will start, are a group: `head`, `0/ray`."""
        group = self._group(name)
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            (group / "cpu.shares").write_text(str(weight))
            for pid in [one for each in pids for one in (each, *descendants(each))]:
                with suppress(ProcessLookupError):
                    (group / "cgroup.procs").write_text(str(pid))

    def limited(self, number):
        """(periods, those of them in which the node had used up its limit) since the node was made; zeros without a limit."""
        with suppress(OSError):
            said = dict(line.split() for line in (self._group(number) / "cpu.stat").read_text().splitlines())
            return int(said["nr_periods"]), int(said["nr_throttled"])
        return 0, 0

    def remove(self):
        """When their processes are gone."""
        until = time.monotonic() + GONE_S
        while (left := list(ROOT.glob(f"{self._prefix}*"))) and time.monotonic() < until:
            for group in [*(inner for outer in left for inner in outer.glob("*/")), *left]:
                with suppress(OSError):
                    group.rmdir()
            time.sleep(0.1)

    def _group(self, name):
        return ROOT / f"{self._prefix}{name}"
