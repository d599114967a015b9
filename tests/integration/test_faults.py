"""Parts that are killed under load: what fails says so, what comes back is right, and nothing else is lost.

The tests run in order: at last the server itself is killed, and the next one stopped.
"""

import os
import signal
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from running import Medserve, is_alive, wait_until

from serving.client import Client, GrpcClient, MedserveError

pytestmark = pytest.mark.integration
BOX = [(16, 16, 100, 100)]


@pytest.fixture(scope="module")
def mortal():
    """A server of its own: its parts are killed."""
    with Medserve(MEDSERVE_REPOSITORY__MODELS="litemedsam") as running:
        yield running


def pixels(seed):
    y, x = np.mgrid[:128, :128]
    disc = np.hypot(x - 58, y - 58) < 20 + seed
    return (40 + 150 * disc + np.random.default_rng(seed).normal(0, 5, disc.shape)).clip(0, 255).astype(np.uint8)


class Load:
    """Threads of clients over both fronts, each with its pictures; every answer is compared with the one before the fault."""

    def __init__(self, server, clients=4):
        self._server = server
        with Client(server.http_url) as client:
            self._golden = [client.segment(pixels(n), boxes=BOX).masks[0].array for n in range(clients)]
        self.wrong, self.faults, self.answers = [], [], []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(clients)]

    def _work(self, number):
        opened = Client(self._server.http_url) if number % 2 else GrpcClient(self._server.grpc_address)
        with opened as client:
            while not self._done.is_set():
                try:
                    found = client.segment(pixels(number), boxes=BOX)
                except MedserveError as error:
                    self.faults.append(error)
                    time.sleep(0.05)
                    continue
                self.answers.append(time.monotonic())
                if not np.array_equal(found.masks[0].array, self._golden[number]):
                    self.wrong.append(number)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._done.set()
        for thread in self._threads:
            thread.join()


def ready(server):
    try:
        return httpx.get(f"{server.http_url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_triton_killed_under_load_comes_back(mortal):
    with Load(mortal) as load:
        wait_until(lambda: len(load.answers) > 10, 30)
        killed = time.monotonic()
        os.kill(mortal.one("bin/tritonserver"), signal.SIGKILL)
        wait_until(lambda: not ready(mortal), 5, every_s=0.02)
        wait_until(lambda: ready(mortal), 20)
        wait_until(lambda: load.answers[-1] > killed + 1, 20)
        serving_again = time.monotonic() - killed
        counted = len(load.answers)
        wait_until(lambda: len(load.answers) > counted + 20, 30)
    assert serving_again < 20
    assert not load.wrong
    assert load.faults
    # Right after it is back, a slow machine may have more waiting than the pool lets wait.
    assert {"engine_unavailable"} <= {fault.code for fault in load.faults} <= {"engine_unavailable", "pool_full"}
    assert all(fault.retryable for fault in load.faults)


def test_a_killed_pool_replica_loses_at_most_what_it_held(mortal):
    clients = 4
    with Load(mortal, clients) as load:
        wait_until(lambda: len(load.answers) > 10, 30)
        killed = time.monotonic()
        os.kill(mortal.some("ServeReplica:medserve:Ingress")[0], signal.SIGKILL)
        wait_until(lambda: load.answers[-1] > killed + 1, 60)
        counted = len(load.answers)
        wait_until(lambda: len(load.answers) > counted + 20, 30)
    assert not load.wrong
    assert len(load.faults) <= clients
    assert all(fault.retryable for fault in load.faults)


@pytest.fixture(scope="module")
def after_a_kill(mortal):
    """(a server of another model, started on the port of the killed one; what ran below that: pid -> command line)."""
    below = {pid: line for pid, line in mortal.processes().items() if pid != mortal.pid}
    triton = mortal.one("bin/tritonserver")
    os.kill(mortal.pid, signal.SIGKILL)
    mortal.stop()
    wait_until(lambda: not is_alive(triton), 5)
    port = mortal.http_url.rsplit(":", 1)[1]
    with Medserve(MEDSERVE_REPOSITORY__MODELS="synthetic-cxr-clip", MEDSERVE_HTTP__PORT=port) as running:
        yield running, below


def test_what_a_killed_server_leaves_is_gone_at_the_next_start(mortal, after_a_kill):
    _, below = after_a_kill
    assert any("haproxy" in line for line in below.values())
    assert not [pid for pid in below if "haproxy" in below[pid] and is_alive(pid)]
    assert not list(Path("/dev/shm").glob(f"medserve_{mortal.pid}_*"))


def test_a_stop_leaves_nothing(after_a_kill):
    """The last of these tests: no server is left."""
    running, _ = after_a_kill
    below = [pid for pid in running.processes() if pid != running.pid]
    assert len(below) > 4
    running.stop()
    assert running.status == 0
    wait_until(lambda: not [pid for pid in below if is_alive(pid)], 15)
    assert not list(Path("/dev/shm").glob(f"medserve_{running.pid}_*"))
    assert not Path(f"/tmp/medserve-{running.pid}").exists()
