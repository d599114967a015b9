"""A local Ray with Ray Serve's optimised modes: HAProxy in front, replicas that take requests directly, gRPC between.

The modes are environment variables that Ray reads when it is first imported, here and in every process that it starts:
`environment` gives them, and `LocalRay.start` sets them before it imports Ray. Measured in `docs/decisions/0003-ray-modes.md`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serving.errors import SetupError
from serving.local.ports import free_ports, free_range, require_free
from serving.settings import Settings

GRPC_MARGIN_BYTES = 1024 * 1024
"""A message this much above the limit in the settings is refused by gRPC itself, from its first bytes; one between by us."""
REPLICA_CAP_BYTES = 1024 * 1024 * 1024
"""Between the router and the pools. A decoded request is never larger than its message; answers may be."""

H2_WINDOW_BYTES = 1024 * 1024
BUFFER_BYTES = 64 * 1024
"""HAProxy's, two a connection that is at work."""
RETRY_ON = "conn-failure empty-response"
"""What HAProxy sends to another replica. On a connection that the replica closes just then (it stops, or died) no answer comes:
by HAProxy's default the client's connection is closed without a word. Ours are calls that may be made twice. It can only repeat
what came whole in one buffer (`BUFFER_BYTES`): every prompt by handle, few images."""

CLOSE_IDLE_S = "2"
"""So soon after a change of the replicas HAProxy's old process closes the connections that idle on it. By Ray's default they
stay there, and a call that comes on one after an upgrade finds none of the replicas that this process knows: 500."""

SERVICERS = ("serving.edge.grpc.add_inference_servicer", "serving.edge.grpc.add_health_servicer")
SPARE_PORTS = 16


def environment(run_dir: Path, multiproc_dir: Path, max_body_bytes: int) -> dict[str, str]:
    """The variables of Ray Serve's optimised modes, with every path and port of this run its own.

    The names are short: Ray puts a 56-character folder between, and a Unix socket's path ends at 97 characters.
    """
    stats, haproxy_metrics, fallback_http, fallback_grpc = free_ports(4)
    http, grpc = free_range(SPARE_PORTS), free_range(SPARE_PORTS)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(haproxy_metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run_dir / "h.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run_dir / "h.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run_dir / "h.state"),
        # Its access log, with every URL as it was sent, otherwise goes to whatever takes syslog on this machine.
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(run_dir / "nobody"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run_dir / "m.sock"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http + SPARE_PORTS - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc + SPARE_PORTS - 1),
        "RAY_SERVE_HAPROXY_RETRY_ON": RETRY_ON,
        "RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S": CLOSE_IDLE_S,
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(max_body_bytes + GRPC_MARGIN_BYTES),
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(REPLICA_CAP_BYTES),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        # The controller looks at its replicas three times a second instead of ten: on two cores that is 3 % of one.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",
        # Ray's figures of HTTP come from the replicas then, and HAProxy writes no line for each request.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # Of HTTP/2, so much of a body may be under way before who takes it says that it may go on, and in pieces so large:
        # with HAProxy's defaults a megabyte stops sixteen times.
        "RAY_SERVE_HAPROXY_H2_FE_INITIAL_WINDOW_SIZE": str(H2_WINDOW_BYTES),
        "RAY_SERVE_HAPROXY_H2_BE_INITIAL_WINDOW_SIZE": str(H2_WINDOW_BYTES),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
        "PROMETHEUS_MULTIPROC_DIR": str(multiproc_dir),
        # One native thread a library in each replica: the cores belong to Triton's engines.
        "OMP_NUM_THREADS": "1",
    }


def _quiet() -> None:
    """Ray Serve's notes are for whoever develops with it; they are in its own logs, under the run directory."""
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.ERROR)


ANSI = re.compile(r"\x1b\[[0-9;]*m")
REMOTE = re.compile(r"^ray::(\S+?)\(\) \(pid=.*\)$")
OWN = re.compile(r"^serving\.errors\.(?:SetupError|Fault): (.+)$", re.MULTILINE)
MOST_CHARS = 200
WATCH_S = 5.0


def reason(exc: Exception) -> str:
    """One line of what Ray raised. Of an error from another process: what was asked of it, and how the error ends.

    Without colours, process ids and the remote trace.
    """
    lines = [line.strip() for line in ANSI.sub("", str(exc)).splitlines() if line.strip()]
    if not lines:
        return type(exc).__name__
    remote = REMOTE.match(lines[0])
    said = f"{remote[1]}: {lines[-1]}" if remote and len(lines) > 1 else remote[1] if remote else lines[0]
    return said[:MOST_CHARS].rstrip()


def own_error(message: str) -> str:
    """What our own code said last in Ray's message on a deployment that does not start, which holds the whole trace."""
    found = OWN.findall(message)
    return found[-1].strip()[:MOST_CHARS] if found else ""


def _trouble() -> list[str]:
    """What keeps the application's replicas from starting, as far as our own code said it."""
    from ray import serve

    application = serve.status().applications.get("medserve")
    told = (own_error(each.message) for each in application.deployments.values()) if application else ()
    return [each for each in told if each]


def _say_trouble(done: threading.Event, say: Callable[[str], None]) -> None:
    """Each trouble once: Ray tries a replica again that failed to start, and that may take minutes."""
    said = set[str]()
    while not done.wait(WATCH_S):
        for each in _trouble():
            if each not in said:
                said.add(each)
                say(f"{each}; trying again")


class LocalRay:
    """Start and stop Ray and the Serve application in this process's children."""

    def __init__(self, settings: Settings, run_dir: Path, servicers: Sequence[str] = SERVICERS) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._servicers = list(servicers)
        self.http_port = settings.http.port
        self.grpc_port = settings.grpc.port

    def start(self, environ: dict[str, str]) -> None:
        """Start Ray with one node on loopback. Raises SetupError."""
        for port, what in ((self.http_port, "HTTP"), (self.grpc_port, "gRPC")):
            if port:
                require_free(port, what)
        free = free_ports(2)
        self.http_port = self.http_port or free[0]
        self.grpc_port = self.grpc_port or free[1]
        os.environ.update(environ)
        import ray
        from ray import serve

        _quiet()
        from ray.serve.config import HTTPOptions, gRPCOptions

        try:
            ray.init(
                address="local",
                num_cpus=1,
                include_dashboard=False,
                object_store_memory=100 * 1024 * 1024,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(self._run_dir / "ray"),
            )
            serve.start(
                http_options=HTTPOptions(host=self._settings.http.host, port=self.http_port),
                grpc_options=gRPCOptions(port=self.grpc_port, grpc_servicer_functions=self._servicers),
                logging_config={"log_level": "ERROR", "enable_access_log": False},
            )
        except (RuntimeError, ValueError, OSError) as exc:
            raise SetupError(f"Ray did not start: {reason(exc)}; its logs lie under {self._run_dir / 'ray'}") from exc

    def deploy(self, application: Any, say: Callable[[str], None]) -> None:
        """Run the application and wait until every replica is up; say what keeps one from it. Raises SetupError."""
        from ray import serve

        done = threading.Event()
        watch = threading.Thread(target=_say_trouble, args=(done, say), name="start-watch", daemon=True)
        watch.start()
        try:
            serve.run(application, name="medserve", route_prefix="/", blocking=False)
        except RuntimeError as exc:
            why = "".join(f": {each}" for each in _trouble())
            raise SetupError(f"the Serve application did not start{why}; its logs lie under {self._run_dir / 'ray'}") from exc
        finally:
            done.set()
            watch.join()

    def stop(self) -> None:
        """Stop the application, then Ray."""
        import ray
        from ray import serve

        if ray.is_initialized():
            serve.delete("medserve")
            ray.shutdown()
