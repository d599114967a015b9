"""Whose CPU time a stretch took: by role of the server's processes, and the client's own."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from serving.bench.server import Server, cpu_seconds

ROLES = (
    (re.compile(r"triton_python_backend_stub .*/(\w+)/\d+/model\."), r"engine \1"),
    (re.compile(r"bin/tritonserver"), "tritonserver"),
    (re.compile(r"ServeReplica:medserve:(\w+)"), r"replica \1"),
    (re.compile(r"haproxy"), "haproxy"),
    (re.compile(r"ray::(Serve\w+|\w*[Pp]roxy\w*)"), r"ray \1"),
    (re.compile(r"raylet|gcs_server"), "ray daemons"),
)


def role(command: str) -> str:
    """What a process does, told from its command line."""
    for pattern, name in ROLES:
        found = pattern.search(command)
        if found:
            return found.expand(name)
    return "other"


@dataclass
class Usage:
    """A context manager: CPU seconds by role while its block ran."""

    server: Server
    seconds: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0

    def __enter__(self) -> Usage:
        self._processes = self.server.processes()
        self._before = {pid: cpu_seconds([pid]) for pid in self._processes}
        self._own = time.process_time()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.wall_s = time.perf_counter() - self._start
        self.seconds = {"client": time.process_time() - self._own}
        for pid, command in self._processes.items():
            spent = cpu_seconds([pid]) - self._before[pid]
            if spent > 0:
                name = role(command)
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def per_call_ms(self, calls: int) -> dict[str, float]:
        """Milliseconds of CPU a call, the largest first."""
        each = {name: 1000 * spent / max(calls, 1) for name, spent in self.seconds.items()}
        return dict(sorted(each.items(), key=lambda item: -item[1]))
