"""Each peer's own environment, made once, and its server while it is measured."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).absolute().parent
CHECKOUT = HERE.parent.parent
START_S = 180


def say(line):
    """Progress."""
    print(f"peers: {line}", file=sys.stderr, flush=True)


def environment(cache, name):
    """The peer's environment, made where it is missing or its requirements changed."""
    folder, wanted = cache / "venvs" / name, (HERE / f"requirements-{name}.txt").read_text()
    stamp = folder / ".requirements"
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"setting up the environment of {name}, once")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / f"requirements-{name}.txt")], check=True)
        stamp.write_text(wanted)
    return folder / "bin"


def free_port():
    """One that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(peer, cache, repository, stock_folder):
    """The peer's server: its URL, while the block runs. Ended by the id of the process group that was started for it."""
    bin_folder, port = environment(cache, peer.venv), free_port()
    environ = {
        **os.environ, "PEER_ENGINES": peer.engines, "PEER_STOCK": str(stock_folder), "PEER_REPOSITORY": str(repository),
        "PYTHONPATH": f"{HERE}:{HERE / 'mlserver_peer'}:{CHECKOUT}", "BENTOML_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1",
        "MLSERVER_HTTP_PORT": str(port), "MLSERVER_GRPC_PORT": str(free_port()), "MLSERVER_METRICS_PORT": str(free_port()),
        "MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": "0", "MLSERVER_DEBUG": "false",
    }  # fmt: skip
    command = peer.command.format(python=bin_folder / "python", bin=bin_folder, port=port).split()
    log = (cache / f"peer-{peer.name}.log").open("wb")
    process = subprocess.Popen(command, cwd=HERE, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(process, url + peer.ready, Path(log.name))
        yield url
    finally:
        for number, patience_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
            with suppress(ProcessLookupError):  # nobody of the group is left
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
        log.close()


def wait_ready(process, url, log):
    """Until it answers 200."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"it ended at once: {log.read_text()[-600:]}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"it was not ready in {START_S} s: {log.read_text()[-600:]}")
