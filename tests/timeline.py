"""What happened when, second by second: the calls, what each group of processes ran and waited for, and who came and went.

    python tests/timeline.py FILE [--seconds]        prints what `tests/operations.py --timeline FILE` wrote

The file is JSON: `requests` (`at_s` on the run's clock, `ms`, `kind`, `status`, `code`, `stages_ms`, `port` of the client),
`samples` (about one a second: seconds that each group of processes ran on a core, and seconds that its threads were ready and
had none), `events` (marks of the procedures, processes that came and went) and `haproxy` (its access log).
"""

import argparse
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from running import command_line, descendants

from serving.bench.figures import percentile

EVERY_S = 1.0
NS = 1e9
GROUPS = (
    ("tritonserver", r"/tritonserver "),
    ("{0}", r"triton_python_backend_stub.*/(\w+)/\d+/model\.\w+ "),
    ("engines", r"triton_python_backend_stub"),
    ("haproxy", r"/haproxy "),
    ("replica {0}", r"^ray::ServeReplica:medserve:(\w+)"),
    ("serve", r"^ray::(?:ServeController|ProxyActor|HAProxyManager)"),
    ("starting", r"^ray::IDLE|default_worker\.py|setup_worker"),
    ("ray", r"raylet|gcs_server|ray/_private|ray/dashboard|ray/autoscaler|log_monitor|runtime_env"),
    ("program", r"tests/cluster\.py|-m serving node"),
)


def group_of(line):
    """The group of a process by its command line."""
    for name, pattern in GROUPS:
        found = re.search(pattern, line)
        if found:
            return name.format(*found.groups())
    return "other"


def spent(pid):
    """(seconds on a core, seconds ready without one, nice) of all threads of a process."""
    ran = waited = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError, ValueError):
            one, two, _ = map(int, path.read_text().split())
            ran, waited = ran + one, waited + two
    with suppress(OSError, ValueError, IndexError):
        nice = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[16])
        return ran / NS, waited / NS, nice
    return ran / NS, waited / NS, None


def machine():
    """Seconds that all cores were busy since the machine's start."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")


class Timeline:
    """A thread that looks at the processes below `pid`, and what others tell it. A context manager; `save` writes it down."""

    def __init__(self, pid):
        self._pid = pid
        self._began = time.perf_counter()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.requests, self.samples, self.events, self.haproxy = [], [], [], []
        self._known, self._last, self._old = {}, {}, set()

    def __enter__(self):
        self._log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with suppress(OSError):  # where the cluster's HAProxy sends its log: nobody listens otherwise
            self._log.bind(f"/tmp/medserve-{self._pid}/nobody")
        self._log.setblocking(False)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._done.set()
        self._thread.join()
        self._log.close()

    def now(self):
        """Seconds of the run's clock."""
        return time.perf_counter() - self._began

    def mark(self, what, begins=True):
        """Something happened. Replicas that come from now on count as new where it `begins` something."""
        self._event(what, begins=begins)
        if begins:
            self._old = set(self._known)

    def request(self, kind, sample):
        """A call that has its answer."""
        self.requests.append(
            {
                "at_s": round(self.now() - sample.seconds, 3),
                "ms": round(1000 * sample.seconds, 1),
                "kind": kind,
                "status": sample.status,
                "code": sample.code,
                "features": sample.features,
                "stages_ms": sample.stages_ms,
            }
        )

    def save(self, path):
        """As one JSON file."""
        said = {name: getattr(self, name) for name in ("requests", "samples", "events", "haproxy")}
        Path(path).write_text(json.dumps(said))

    def _watch(self):
        before, at = machine(), self.now()
        while not self._done.wait(EVERY_S):
            ran, waited = self._look()
            busy, now = machine(), self.now()
            others = max(busy - before - sum(ran.values()), 0.0)
            row = {name: [round(ran[name], 3), round(waited[name], 3)] for name in sorted(ran)}
            self.samples.append({"at_s": round(now, 3), "seconds": round(now - at, 3), "others": round(others, 3), **row})
            before, at = busy, now
            with suppress(BlockingIOError):
                while True:
                    self.haproxy.append([round(self.now(), 3), self._log.recv(8192).decode(errors="replace")])

    def _look(self):
        ran, waited, living = Counter(), Counter(), set()
        for pid in [self._pid, *descendants(self._pid), os.getpid()]:
            group = "load" if pid == os.getpid() else group_of(command_line(pid))
            living.add(pid)
            if self._known.get(pid) != group:
                self._event(f"{group} {pid} " + ("comes" if pid not in self._known else f"was {self._known[pid]}"))
                self._known[pid] = group
            one, two, nice = spent(pid)
            was = self._last.get(pid, (0.0, 0.0, nice) if len(self.samples) else (one, two, nice))
            if was[2] != nice:
                self._event(f"{group} {pid} has nice {nice}")
            self._last[pid] = (one, two, nice)
            name = f"new {group}" if self._old and pid not in self._old and group.startswith("replica") else group
            ran[name] += max(one - was[0], 0.0)
            waited[name] += max(two - was[1], 0.0)
        for pid in set(self._known) - living:
            self._event(f"{self._known.pop(pid)} {pid} is gone")
            self._last.pop(pid, None)
        return ran, waited

    def _event(self, what, begins=False):
        self.events.append({"at_s": round(self.now(), 3), "what": what, "begins": begins})


def between(said, since, until):
    """The samples and the calls of a stretch."""
    samples = [each for each in said["samples"] if since <= each["at_s"] - each["seconds"] / 2 < until]
    return samples, [each for each in said["requests"] if since <= each["at_s"] < until]


def stretches(said):
    """(what, since, until): from each mark that begins something to the next."""
    marks = [(each["at_s"], each["what"]) for each in said["events"] if each.get("begins")]
    ends = [at for at, _ in marks[1:]] + [said["samples"][-1]["at_s"]]
    return [(what, at, end) for (at, what), end in zip([(0.0, "start"), *marks], [marks[0][0], *ends], strict=True)]


def summary(said):
    """Of each stretch: calls by kind with their latencies and stages, and what each group took of a core, and waited for."""
    for what, since, until in stretches(said):
        samples, calls = between(said, since, until)
        yield f"{what}, {until - since:.0f} s"
        for kind in ("prompt", "encode", "classify"):
            mine = [each for each in calls if each["kind"] == kind and each["status"] == 200]
            stages = {name for each in mine for name in each["stages_ms"]}
            p50 = {name: percentile([each["stages_ms"].get(name, 0) for each in mine], 50) for name in sorted(stages)}
            ms = [each["ms"] for each in mine]
            rest = Counter(
                f"{each['status']} {each['code']}" for each in calls if each["kind"] == kind and each["status"] != 200
            )
            times = " ".join(f"p{q} {percentile(ms, q):.0f}" for q in (50, 95, 99))
            yield f"  {kind}: {len(mine)}, {times} ms; " + " ".join(f"{n} {v:.1f}" for n, v in p50.items()) + f" {dict(rest)}"
        spent = sum(each["seconds"] for each in samples)
        for name in sorted({name for row in samples for name in row} - {"at_s", "seconds", "others"}):
            ran, waited = (sum(row.get(name, (0, 0))[n] for row in samples) / spent for n in (0, 1))
            if ran >= 0.01:
                yield f"    {name}: {ran:.2f} of a core, {waited:.2f} waiting"
        yield f"    other programs of this machine: {sum(row['others'] for row in samples) / max(spent, 1e-9):.2f}"


def table(said):
    """A line a second: calls, the slowest prompt and reading, each group's seconds on a core + waiting; and what happened."""
    shown = sorted({name for row in said["samples"] for name in row} - {"at_s", "seconds", "others"})
    yield " | ".join(["second", "calls", "slowest prompt, ms", "reading", "others", *shown])
    for row in said["samples"]:
        since, until = row["at_s"] - row["seconds"], row["at_s"]
        calls = between(said, since, until)[1]
        slowest = [max((each["ms"] for each in calls if each["kind"] == kind), default=0) for kind in ("prompt", "classify")]
        cells = [f"{until:.0f}", f"{len(calls)}", *(f"{ms:.0f}" for ms in slowest), f"{row['others']:.2f}"]
        yield " | ".join([*cells, *("{:.2f}+{:.2f}".format(*row.get(name, (0, 0))) for name in shown)])
        yield from (f"    {each['at_s']:.1f} {each['what']}" for each in said["events"] if since <= each["at_s"] < until)
    slow = sorted((each for each in said["requests"] if each["kind"] == "prompt"), key=lambda each: -each["ms"])[:12]
    yield from ["", "the slowest prompts:", *(json.dumps(each) for each in slow)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="what `tests/operations.py --timeline FILE` wrote")
    parser.add_argument("--seconds", action="store_true", help="a line a second as well")
    said = parser.parse_args()
    found = json.loads(said.file.read_text())
    print("\n".join([*summary(found), "", *(table(found) if said.seconds else ())]))
