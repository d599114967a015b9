"""The whole product on this machine: the embedded Triton, its supervisor, a local Ray and the Serve application."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from serving import deployments, served, shm
from serving.embeddings import arena
from serving.local import ray as local_ray
from serving.local.supervise import Supervisor
from serving.local.triton import EmbeddedTriton
from serving.settings import Settings
from serving.telemetry import logs

Say = Callable[[str], None]
PREFIX = "medserve-"


class Stack:
    """Starts in order, says each step, stops in reverse. A context manager.

    `http_url`, `grpc_address`, `triton`: known after `start`. `run_dir` holds logs and sockets; it is removed by a clean
    stop and kept after a failed start, whose error names the log.
    """

    def __init__(self, settings: Settings, say: Say = lambda line: None) -> None:
        self._settings = settings
        self._say = say
        self.run_dir = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}"
        self.http_url = ""
        self.grpc_address = ""
        self.triton: EmbeddedTriton | None = None
        self._supervisor: Supervisor | None = None
        self._ray: local_ray.LocalRay | None = None
        self._region = ""

    def start(self) -> None:
        """Start everything and wait until it is ready. Raises SetupError; what had started is stopped again."""
        logs.begin(self._settings, aloud=True)
        _forget_dead_runs()
        metrics_dir = self.run_dir / "metrics"
        metrics_dir.mkdir(parents=True, exist_ok=True)
        try:
            settings = self._start_triton(self._make_arena(self._with_spool(self._settings)))
            self._start_ray(settings, metrics_dir)
        except BaseException:
            self._stop_parts()
            raise

    def _with_spool(self, settings: Settings) -> Settings:
        """The settings with the folder of this run's volume jobs: they end with it."""
        if settings.volumes.spool is not None:
            return settings
        spool = settings.volumes.model_copy(update={"spool": self.run_dir / "volumes"})
        return settings.model_copy(update={"volumes": spool})

    def _make_arena(self, settings: Settings) -> Settings:
        """The settings with the region of this node's Features."""
        if not settings.features.region:
            shm.sweep()
            self._region = arena.create("features", settings.features.budget_bytes, served.slot_bytes(settings))
            settings = settings.model_copy(update={"features": settings.features.model_copy(update={"region": self._region})})
        return settings

    def _start_triton(self, settings: Settings) -> Settings:
        if settings.triton.address:
            self._say(f"the engines are in the Triton at {settings.triton.address}: waiting for it if it is not up yet")
            return settings
        engines = served.engine_names(settings)
        self._say(f"starting Triton with {len(engines)} engines")
        self.triton = EmbeddedTriton(
            settings.repository.path,
            engines,
            self.run_dir / "triton",
            start_timeout_s=settings.triton.start_timeout_s,
            threads=settings.triton.threads,
            arena=settings.features.region,
            traces=settings.tracing.endpoint,
        )
        self.triton.start()
        self._supervisor = Supervisor(self.triton)
        self._supervisor.start()
        address = settings.triton.model_copy(update={"address": self.triton.grpc_address})
        return settings.model_copy(update={"triton": address})

    def _start_ray(self, settings: Settings, metrics_dir: Path) -> None:
        self._say("starting Ray")
        self._ray = local_ray.LocalRay(settings, self.run_dir)
        self._ray.start(local_ray.environment(self.run_dir, metrics_dir, settings.limits.max_body_bytes))
        self._say("starting the router and the pools, warming the models up")
        self._ray.deploy(deployments.build_application(settings), self._say)
        self.http_url = f"http://{settings.http.host}:{self._ray.http_port}"
        self.grpc_address = f"{settings.http.host}:{self._ray.grpc_port}"

    def stop(self) -> None:
        """Stop everything that `start` started."""
        self._stop_parts()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def _stop_parts(self) -> None:
        if self._ray is not None:
            self._ray.stop()
        if self._supervisor is not None:
            self._supervisor.stop()  # and with its thread dies a Triton that it started (PR_SET_PDEATHSIG): after its clients
        if self.triton is not None:
            self.triton.stop()
        if self._region:
            shm.remove(self._region)
        shm.sweep()

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def wait_for_signal() -> None:
    """Block until SIGINT or SIGTERM."""
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    done.wait()


def _forget_dead_runs() -> None:
    """Remove what a server that was killed left: its run directory, and Ray's HAProxy, which outlives its Ray."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = path.name.removeprefix(PREFIX)
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _end_haproxy_of(path)
            shutil.rmtree(path, ignore_errors=True)


def _end_haproxy_of(run_dir: Path) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"/haproxy") and any(word.startswith(os.fsencode(f"{run_dir}/")) for word in words):
            with suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
