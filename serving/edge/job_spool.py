"""Volume jobs on disk: a folder a job, seen by every replica that has the spool, bounded in number, bytes and time.

``<spool>/<job>/``: ``owner`` (tenant's digest, the node and the process at work), ``events`` (one JSON line each, numbered by
`seq`), ``alive`` (touched while it is worked on), ``result``, ``cancel`` (asked for by whichever replica got the call),
``ended`` (nothing follows). A job whose process is gone has ended too: on its own node the process is looked for; another
node that shares the folder goes by when the job was touched last.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from serving import shm
from serving.errors import Fault, Kind
from serving.settings import VolumeSettings

RETRY_AFTER_S = 10.0
ALIVE_S = 5.0
"""How often who works on a job touches it."""
LOST_S = 60.0
"""After so long without, another node takes the job for lost: clocks differ, and a network disk is slow to tell."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAME = re.compile(r"[0-9a-f]{32}")


class Job:
    """One job's folder. Every method is quick; `id` is 128 random bits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.id = folder.name

    def append(self, event: dict[str, Any]) -> None:
        """The next event, as one line in one write. Nobody is there to be told of a job that was removed meanwhile."""
        line = json.dumps(event, separators=(",", ":")) + "\n"
        try:
            descriptor = os.open(self._folder / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except FileNotFoundError:
            return
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def end(self, event: dict[str, Any]) -> None:
        """The last event. Who has read it finds the job ended."""
        if self._folder.exists():
            (self._folder / "ended").touch(0o600)
        self.append(event)

    def events(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        """The events behind an offset of the file, and the next offset. Raises Fault where the job is gone."""
        try:
            with (self._folder / "events").open("rb") as file:
                file.seek(offset)
                whole, mark, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            if not self._folder.exists():
                raise unknown() from None
            return [], offset
        if not mark:
            return [], offset
        return [json.loads(line) for line in whole.split(b"\n")], offset + len(whole) + 1

    @property
    def ended(self) -> bool:
        """Whether the last event has come."""
        return (self._folder / "ended").exists()

    @property
    def orphaned(self) -> bool:
        """Whether it has not ended and its process is gone."""
        return not self.ended and not self._owner_lives()

    @property
    def cancel_asked(self) -> bool:
        """Whether somebody wants it to stop, or has removed it already."""
        return (self._folder / "cancel").exists() or not self._folder.exists()

    def cancel(self) -> None:
        """Ask the process at work to stop."""
        if self._folder.exists():
            (self._folder / "cancel").touch(0o600)

    def beat(self) -> None:
        """Its process is at work."""
        with suppress(FileNotFoundError):  # removed meanwhile
            (self._folder / "alive").touch(0o600)

    @property
    def of_this_node(self) -> bool:
        """Whether its process is on this node, at work or not."""
        return bool(self._owner().get("node") == _node())

    def belongs_to(self, tenant: str) -> bool:
        """Whether it is this tenant's."""
        return secrets.compare_digest(self._owner().get("tenant", ""), _digest(tenant))

    def result(self) -> bytes | None:
        """The whole result, or None where there is none."""
        try:
            return (self._folder / "result").read_bytes()
        except FileNotFoundError:
            return None

    def write(self, data: bytes) -> None:
        """The result, there as a whole or not at all."""
        partial = self._folder / "partial"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        partial.replace(self._folder / "result")

    @property
    def result_bytes(self) -> int:
        """Size of the result, 0 without."""
        try:
            return (self._folder / "result").stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def touched_s(self) -> float:
        """When it last changed, by the wall clock."""
        try:
            return max(path.stat().st_mtime for path in (self._folder, *self._folder.iterdir()))
        except FileNotFoundError:
            return 0.0

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _owner(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._folder / "owner").read_bytes())
            return found
        except (FileNotFoundError, ValueError):
            return {}

    def _owner_lives(self) -> bool:
        owner = self._owner()
        if owner and owner["node"] != _node():
            return time.time() - self.touched_s < LOST_S
        return bool(owner) and shm.start_ticks(owner["pid"]) == owner["start"]


class Spool:
    """The jobs of one node, or of several that share the folder. It is made, for this user alone."""

    def __init__(self, settings: VolumeSettings) -> None:
        self._settings = settings
        self._folder = settings.spool or Path(tempfile.gettempdir()) / f"medserve-volumes-{os.getuid()}"

    def create(self, tenant: str) -> Job:
        """A new job of this process. Raises Fault(POOL_FULL) where as many as may are at work."""
        with self._locked():
            jobs = self._living()
            if sum(job.of_this_node and not job.ended and not job.orphaned for job in jobs) >= self._settings.max_running:
                message = "as many volumes as may are worked on at this moment: try again later"
                raise Fault(Kind.POOL_FULL, message, retry_after_s=RETRY_AFTER_S)
            self._make_room(jobs, jobs_left=self._settings.max_jobs - 1, bytes_left=self._settings.max_result_bytes)
            folder = self._folder / secrets.token_hex(16)
            folder.mkdir(0o700)
            pid = os.getpid()
            owner = {"tenant": _digest(tenant), "node": _node(), "pid": pid, "start": shm.start_ticks(pid)}
            (folder / "owner").write_text(json.dumps(owner))
            return Job(folder)

    def find(self, ident: str, tenant: str) -> Job:
        """A tenant's job. Raises Fault(NOT_FOUND), the same for one that is another's."""
        job = Job(self._folder / ident)
        if not _NAME.fullmatch(ident) or not job.belongs_to(tenant):
            raise unknown()
        return job

    def keep(self, job: Job, data: bytes) -> None:
        """Write a job's result; older ones make room. Raises Fault(TOO_LARGE) where it alone is more than there may be."""
        most = self._settings.max_result_bytes
        if len(data) > most:
            raise Fault(Kind.TOO_LARGE, f"the result takes {len(data)} bytes; the limit volumes.max_result_bytes is {most}")
        with self._locked():
            self._make_room(self._living(), jobs_left=self._settings.max_jobs, bytes_left=most - len(data))
            job.write(data)

    def _living(self) -> list[Job]:
        """All jobs, the least recently changed first; those whose time is over are removed."""
        jobs = [Job(path) for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        now, living = time.time(), []
        for job in sorted(jobs, key=lambda each: each.touched_s):
            if now - job.touched_s > self._settings.ttl_s and (job.ended or job.orphaned):
                job.remove()
            else:
                living.append(job)
        return living

    def _make_room(self, jobs: list[Job], jobs_left: int, bytes_left: int) -> None:
        idle = [job for job in jobs if job.ended or job.orphaned]
        count, held = len(jobs), sum(job.result_bytes for job in jobs)
        for job in idle:
            if count <= jobs_left and held <= bytes_left:
                return
            count, held = count - 1, held - job.result_bytes
            job.remove()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def unknown() -> Fault:
    """There is no such job, or it is not this tenant's."""
    message = "no such job here: its time is over, it was forgotten, or its node is gone: send the volume again"
    return Fault(Kind.NOT_FOUND, message, param="job")


def _node() -> str:
    """This machine or container, since it was started: process ids mean something within it alone."""
    return f"{socket.gethostname()} {_BOOT.read_text().strip()}"


def _digest(tenant: str) -> str:
    return hashlib.sha256(tenant.encode()).hexdigest()
