"""Shared-memory regions of this product: names that tell their owner, and the sweep of what the dead left behind.

A name is ``medserve_<pid>_<start>_...`` where `start` is the owner's start time in clock ticks (field 22 of
``/proc/<pid>/stat``): a recycled pid is not mistaken for the owner.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/dev/shm")
NAME = re.compile(r"medserve_(\d+)_(\d+)_")


@dataclass(frozen=True, eq=False)
class Slot:
    """A place in a region that Triton has mapped (`embeddings.arena`): nothing else is written there while this object lives.

    `generation` grows each time the place is given away; `offset`: bytes from the start of the region.
    """

    region: str
    index: int
    generation: int
    offset: int


def start_ticks(pid: int) -> int | None:
    """When a process started, clock ticks since boot, or None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rsplit(")", 1)[1].split()[19])


def prefix(pid: int | None = None) -> str:
    """The prefix of every region that a process owns; this process's by default."""
    owner = os.getpid() if pid is None else pid
    return f"medserve_{owner}_{start_ticks(owner)}_"


def sweep(root: Path = ROOT) -> int:
    """Remove the regions of dead owners. Gives how many."""
    stale = [path for path in root.glob("medserve_*") if owner_is_gone(path.name)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def owner_is_gone(name: str) -> bool:
    """Whether a region is one of this product's whose owner does not live any more."""
    found = NAME.match(name)
    return found is not None and start_ticks(int(found[1])) != int(found[2])


def remove(name_prefix: str, root: Path = ROOT) -> None:
    """Remove every region of one prefix."""
    for path in root.glob(f"{name_prefix}*"):
        path.unlink(missing_ok=True)
