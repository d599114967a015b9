"""The server under measurement: `medserve up` as a child process, or one that runs already; and what it uses of the machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from serving.errors import SetupError

STOP_S = 60
SHM = Path("/dev/shm")


class Server:
    """`medserve up` on free ports, with settings as MEDSERVE_ variables. A context manager."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[str] | None = None
        self.http_url = ""
        self.grpc_address = ""
        self.log = ""

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid if self._process else 0

    def __enter__(self) -> Server:
        command = [sys.executable, "-m", "serving", "up", "--http-port", "0", "--grpc-port", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, env=self._environ, text=True, start_new_session=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log += line
            found = re.search(r"ready: HTTP (\S+) .* gRPC (\S+)", line)
            if found:
                self.http_url, self.grpc_address = found.groups()
                return self
        self._process.wait()
        last = self.log.strip().splitlines() or ["no word"]
        raise SetupError(f"the server did not start: {last[-1].removeprefix('medserve: ')}")

    def __exit__(self, *exc: object) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            self.log += process.communicate(timeout=STOP_S)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def processes(self) -> dict[int, str]:
        """Every living process below it, itself included: pid -> command line."""
        return {pid: command_line(pid) for pid in descendants(self.pid)} if self.pid else {}

    def find(self, *words: str) -> list[int]:
        """The pids whose command line has all the words."""
        return [pid for pid, line in self.processes().items() if all(word in line for word in words)]


class Running(Server):
    """One that somebody else started: its processes are not known, so memory is not measured and nothing is killed."""

    def __init__(self, http_url: str, grpc_address: str) -> None:
        super().__init__()
        self.http_url, self.grpc_address = http_url, grpc_address

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: object) -> None:
        return


def command_line(pid: int) -> str:
    """Words apart by spaces; nothing where the process is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    below = [pid]
    for parent in below:
        below += [child for child, its in parents.items() if its == parent]
    return below


def memory_bytes(pids: list[int], shm: bool = True) -> int:
    """Memory of processes together, shared pages counted once (PSS), files of /dev/shm among them where `shm`."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = dict(re.findall(r"^(Pss\w*):\s+(\d+) kB", text, re.MULTILINE))
        total += 1024 * (int(found.get("Pss", 0)) - (0 if shm else int(found.get("Pss_Shmem", 0))))
    return total


def shm_bytes(pids: list[int]) -> int:
    """What files of these processes in /dev/shm take (blocks in use, not their length)."""
    total = 0
    for path in SHM.glob("medserve_*"):
        owner = re.match(r"medserve_(\d+)_", path.name)
        if owner and int(owner[1]) in pids:
            try:
                total += path.stat().st_blocks * 512
            except OSError:
                continue
    return total


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that processes have used."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def counter(url: str, name: str, **labels: str) -> float:
    """The sum of a Prometheus counter's series that carry the labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return total(answer.read().decode(), name, labels)


def total(text: str, name: str, labels: Mapping[str, str]) -> float:
    """The sum over a text exposition's series of a name that carry the labels."""
    found = 0.0
    for line in text.splitlines():
        match = re.match(rf"{re.escape(name)}(?:{{(.*)}})? (\S+)$", line)
        if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
            found += float(match[2])
    return found
