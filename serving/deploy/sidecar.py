"""The embedded Triton as a container of its own, on a CPU: `python -m serving.deploy.sidecar ARGUMENTS`, those of tritonserver.

It puts the Python-based backends into the `--backend-directory` that the arguments name and ends when the server ends or an
engine's process does, which Triton does not bring back: the kubelet starts the container again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serving.errors import SetupError
from serving.local.triton import answers, binary_path, children, environment, runs, write_backends

POLL_S = 1.0
STOP_S = 30.0
BACKENDS = "--backend-directory="


def main(arguments: Sequence[str] | None = None) -> None:
    """The program. Exit status: the server's; 1 where it could not start or an engine died."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        process = start(given)
    except SetupError as exc:
        print(f"medserve: {exc}", file=sys.stderr, flush=True)
        raise SystemExit(1) from exc
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: process.terminate())
    raise SystemExit(watch(process, lambda: answers(ready_url(given))))


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """The server's process. Raises SetupError."""
    folders = [word.removeprefix(BACKENDS) for word in arguments if word.startswith(BACKENDS)]
    if not folders:
        raise SetupError(f"the sidecar needs {BACKENDS}FOLDER: where to put its backends")
    write_backends(Path(folders[0]))
    threads, arena = int(os.environ.get("MEDSERVE_ENGINE_THREADS", "0")), os.environ.get("MEDSERVE_ARENA", "")
    return subprocess.Popen([str(binary_path()), *arguments], env=environment(threads, arena))


def ready_url(arguments: Sequence[str]) -> str:
    """Where the server says whether it is ready, by its arguments."""
    given = dict(word.partition("=")[::2] for word in arguments)
    return f"http://{given.get('--http-address', '127.0.0.1')}:{given.get('--http-port', '8000')}/v2/health/ready"


def watch(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> int:
    """Wait until the server ends; end it when one of the engines that it had when it became ready is gone.

    Before that it starts processes that look at a model and leave.
    """
    engines: tuple[int, ...] = ()
    while process.poll() is None:
        time.sleep(POLL_S)
        if not engines:
            engines = children(process.pid) if ready() else ()
        elif not all(runs(pid) for pid in engines):
            return end(process)
    return process.returncode


def end(process: subprocess.Popen[bytes]) -> int:
    """End the server, as itself it would go on without the engine."""
    print("medserve: an engine's process died: ending the server", file=sys.stderr, flush=True)
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return 1


if __name__ == "__main__":
    main()
