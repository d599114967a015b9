"""Those that serve come before those that start, where they share cores.

Ray's workers have nice 15 (`RAY_worker_niceness`; `deployments` starts them with it). A replica stays there while it imports,
loads and warms up, and leaves it when it is ready: during an upgrade the new ones take what the old ones leave. It needs leave
to do so (`CAP_SYS_NICE` or `RLIMIT_NICE`); where there is none, all stay equal.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SERVING = 0
"""The nice value of a replica that is ready."""


def ready(tasks: Path = Path("/proc/self/task")) -> bool:
    """All threads of this process to `SERVING`; new ones inherit it. False where that is not allowed."""
    for _ in range(2):  # a thread that another one started meanwhile has its old value
        for task in tasks.iterdir():
            try:
                with suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, int(task.name), SERVING)
            except PermissionError:
                return False
    return True
