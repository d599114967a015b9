"""The embedded Triton: the `tritonserver` of the nvidia-pytriton wheel as a child process, on loopback, on a CPU."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from serving import shm, slots
from serving.errors import SetupError
from serving.local import echo
from serving.local.ports import free_ports, require_free

BACKENDS = Path(__file__).parent / "backends"
NATIVE = ("openvino", "onnxruntime")
MIN_SHM_BYTES = 256 * 1024 * 1024
POLL_S = 0.1
STOP_S = 15.0
PR_SET_PDEATHSIG = 1
NO_RATE = 2**31 - 1
"""Triton traces one call in so many of those that bring no trace context, and each that does."""


class EmbeddedTriton:
    """One child server. `start`, `stop`, `restart` (same ports); a context manager.

    `repository`: the model repository; `models`: engine names to load; `run_dir`: where its backends and its log go;
    ports: 0 takes a free one; `arena`: region of the Features that its engines read and write; `traces`: the collector that
    gets the spans of calls that come with a `traceparent` (OTLP over HTTP), or empty. After `start`: `grpc_address`,
    `metrics_address`, `pid`, `log_path`.
    """

    def __init__(
        self,
        repository: Path,
        models: Sequence[str],
        run_dir: Path,
        *,
        start_timeout_s: float,
        threads: int = 0,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        arena: str = "",
        traces: str = "",
    ) -> None:
        self._repository = repository
        self._models = tuple(models)
        self._run_dir = run_dir
        self._start_timeout_s = start_timeout_s
        self._threads = threads
        self._arena = arena
        self._traces = traces
        self._ports = [grpc_port, http_port, metrics_port]
        self._process: subprocess.Popen[bytes] | None = None
        self._engines: tuple[int, ...] = ()
        self.log_path = run_dir / "triton.log"

    @property
    def grpc_address(self) -> str:
        """host:port of the gRPC endpoint."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def metrics_address(self) -> str:
        """host:port of Triton's own /metrics."""
        return f"127.0.0.1:{self._ports[2]}"

    @property
    def pid(self) -> int:
        """The server's process id; 0 when it is not started."""
        return self._process.pid if self._process else 0

    def alive(self) -> bool:
        """Whether the server runs, and each engine's own process: Triton 2.51 does not bring a dead one back."""
        running = self._process is not None and self._process.poll() is None
        return running and all(runs(pid) for pid in self._engines)

    def start(self) -> None:
        """Start, wait until it is ready, and check that arrays come back as they went. Raises SetupError."""
        binary = self._check()
        shm.sweep()
        write_backends(self._run_dir / "backends")
        echo.write(self._run_dir / "echo", BACKENDS / "echo" / "model.py")
        for port, what in zip(self._ports, ("Triton's gRPC", "Triton's HTTP", "Triton's metrics"), strict=True):
            if port:
                require_free(port, what)
        self._ports = [port or free for port, free in zip(self._ports, free_ports(3), strict=True)]
        self._launch(binary)

    def restart(self) -> None:
        """Start again on the same ports after the process died. Raises SetupError."""
        self._end()
        self._launch(binary_path())

    def stop(self) -> None:
        """Stop the server and remove its shared memory."""
        self._end()

    def __enter__(self) -> EmbeddedTriton:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _check(self) -> Path:
        binary = binary_path()
        free = shutil.disk_usage(shm.ROOT).free
        if free < MIN_SHM_BYTES:
            need, have = MIN_SHM_BYTES >> 20, free >> 20
            raise SetupError(f"/dev/shm has {have} MiB free and Triton needs {need}: give more (docker: --shm-size=1g)")
        if not self._repository.is_dir():
            raise SetupError("the model repository does not exist: run `medserve models build litemedsam`")
        for name in self._models:
            if not any((self._repository / name).glob("[0-9]*/model.*")):
                raise SetupError(f"engine {name} is not built: run `medserve models build` for its model")
        return binary

    def command(self, binary: Path) -> list[str]:
        """The server's command line."""
        grpc_port, http_port, metrics_port = self._ports
        return [
            str(binary),
            f"--model-repository={self._repository}",
            f"--model-repository={self._run_dir / 'echo'}",
            f"--backend-directory={self._run_dir / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={shm.prefix()}triton",
            "--model-config-name=cpu",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in (echo.MODEL, *self._models)),
            "--exit-on-error=true",
            "--exit-timeout-secs=5",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={grpc_port}",
            "--http-address=127.0.0.1",
            f"--http-port={http_port}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={metrics_port}",
            "--allow-gpu-metrics=false",
            "--log-info=false",
            *_trace_options(self._traces),
        ]

    def _launch(self, binary: Path) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(binary),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(self._threads, self._arena),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        try:
            self._wait_until_ready()
            self._engines = children(self.pid)
            echo.check(self.grpc_address)
        except BaseException:
            self._end()
            raise

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + self._start_timeout_s
        while time.monotonic() < until:
            if not self.alive():
                raise SetupError(f"Triton did not start: {self._reason()}; its log is {self.log_path}")
            if answers(f"http://127.0.0.1:{self._ports[1]}/v2/health/ready"):
                return
            time.sleep(POLL_S)
        raise SetupError(f"Triton was not ready after {self._start_timeout_s:.0f} s; its log is {self.log_path}")

    def _reason(self) -> str:
        text = self.log_path.read_text(errors="replace")
        failed = re.findall(r"failed to load '([^']+)' version \d+: ([^\n]+)", text)
        if failed:
            return f"model {failed[-1][0]} does not load ({failed[-1][1][:160]})"
        errors = re.findall(r"^(?:E\d+ [\d:.]+ \d+ [^\]]+\] |error: )(.+)$", text, flags=re.MULTILINE)
        return errors[-1].strip('"')[:200] if errors else "it ended without a word"

    def _end(self) -> None:
        process, self._process, self._engines = self._process, None, ()
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):  # it had its time; the group is killed below
                process.wait(STOP_S)
        with suppress(ProcessLookupError):  # nobody of the group is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shm.remove(f"{shm.prefix()}triton")


def write_backends(target: Path) -> None:
    """The embedded server's backends: its Python backend with this interpreter's stub, ours for the CPU. Raises SetupError."""
    root = binary_path().parent.parent
    shutil.rmtree(target, ignore_errors=True)
    python = target / "python"
    shutil.copytree(root / "backends" / "python", python, ignore=shutil.ignore_patterns("__pycache__"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise SetupError(f"the embedded Triton has no stub for Python {version}: use Python 3.11")
    shutil.copy2(stub, python / stub.name)
    # The stub runs an isolated interpreter that ignores PYTHONPATH: its first import is where this one's packages come in.
    utils = python / "triton_python_backend_utils.py"
    utils.write_text(f"import sys\nsys.path.insert(0, {sysconfig.get_path('purelib')!r})\n" + utils.read_text())
    for name in NATIVE:
        shutil.copytree(BACKENDS / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        for shared in (BACKENDS / "features.py", Path(slots.__file__)):
            shutil.copy2(shared, target / name / shared.name)


def environment(threads: int, arena: str) -> dict[str, str]:
    """This process's variables with what the embedded server and its engines need: libraries, threads, the arena's region."""
    libraries = [
        sysconfig.get_config_var("LIBDIR"),
        str(_site() / "nvidia_pytriton.libs"),
        os.environ.get("LD_LIBRARY_PATH"),
    ]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "MEDSERVE_ENGINE_THREADS": str(threads),
        "MEDSERVE_ARENA": arena,
    }


def children(pid: int) -> tuple[int, ...]:
    """The processes that a process started and that live."""
    listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return tuple(int(word) for text in listed for word in text.split())


def runs(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def _site() -> Path:
    return Path(sysconfig.get_path("purelib"))


def binary_path() -> Path:
    """The embedded tritonserver. Raises SetupError."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise SetupError("the embedded Triton is not installed: run `make setup` (package nvidia-pytriton)")
    return Path(spec.origin).parent / "tritonserver" / "bin" / "tritonserver"


def answers(url: str) -> bool:
    """Whether a GET is answered with 200 within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _die_with_parent() -> None:
    """In the child: be killed when the parent is gone, however it went (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _trace_options(endpoint: str) -> list[str]:
    """Triton's own spans below ours. Of calls without a `traceparent`, which the router did not sample, as good as none."""
    if not endpoint:
        return []
    said = (
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        f"rate={NO_RATE}",
        f"opentelemetry,url={endpoint.rstrip('/')}/v1/traces",
        "opentelemetry,resource=service.name=medserve-triton",
        "opentelemetry,bsp_schedule_delay=1000",
    )
    return [f"--trace-config={each}" for each in said]
