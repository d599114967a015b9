"""The real server as a subprocess, and what the tests look up about processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

START_S = 180
STOP_S = 60


class Medserve:
    """`medserve up` on free ports. A context manager.

    `environ`: settings as MEDSERVE_ variables. After start: `http_url`, `grpc_address`, `pid`, and `log`, its standard error.
    """

    def __init__(self, **environ):
        self._environ = {**os.environ, **environ}
        self.log = ""

    def __enter__(self):
        command = [sys.executable, "-m", "serving", "up", "--grpc-port", "0"]
        command += [] if "MEDSERVE_HTTP__PORT" in self._environ else ["--http-port", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, env=self._environ, text=True, start_new_session=True)
        self.pid = self._process.pid
        for line in self._process.stderr:
            self.log += line
            found = re.search(r"ready: HTTP (\S+) .* gRPC (\S+)", line)
            if found:
                self.http_url, self.grpc_address = found.groups()
                return self
        raise AssertionError(f"the server did not start:\n{self.log}")

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        """Its `status` then is its exit status. Stopped once, it stays so."""
        if self._process.stderr.closed:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self.log += self._process.communicate(timeout=STOP_S)[1]
        self.status = self._process.returncode

    def processes(self):
        """Every living process below it, itself included: pid -> command line."""
        return {pid: command_line(pid) for pid in [self.pid, *descendants(self.pid)]}

    def some(self, word):
        """The pids of the processes whose command lines have a word."""
        return [pid for pid, line in self.processes().items() if word in line]

    def one(self, word):
        """The pid of the one process whose command line has a word."""
        found = self.some(word)
        assert len(found) == 1, f"{len(found)} processes have {word!r}"
        return found[0]


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def is_alive(pid):
    """Whether a process runs; one that is dead and not yet reaped by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def parents():
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    return found


def descendants(pid):
    below, known = [pid], parents()
    for parent in below:
        below += [child for child, its in known.items() if its == parent]
    return below[1:]


def resident_bytes(pid):
    """A process's share of what is resident: pages that several map (the arena, libraries) count once among them (PSS)."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def wait_until(condition, timeout_s, every_s=0.1):
    """The condition's first true value. Fails after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(every_s)
    raise AssertionError(f"not true within {timeout_s} s")
