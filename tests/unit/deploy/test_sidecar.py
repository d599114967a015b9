"""The sidecar ends with its server, and ends its server when an engine's process dies. Shells stand for both."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from running import wait_until

from serving.deploy import sidecar
from serving.local.triton import children, runs

HOLDER = """
import signal, subprocess, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
subprocess.Popen(["sleep", "600"])
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sidecar, "POLL_S", 0.05)


def test_it_gives_the_server_s_status():
    assert sidecar.watch(subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]), lambda: True) == 3


def test_a_dead_engine_ends_the_server(monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", HOLDER])
    (engine,) = wait_until(lambda: children(process.pid), 60)
    looks, statuses = [], []
    monkeypatch.setattr(sidecar, "runs", lambda pid: looks.append(pid) or runs(pid))
    watcher = threading.Thread(target=lambda: statuses.append(sidecar.watch(process, lambda: True)))
    watcher.start()
    wait_until(lambda: looks, 60)
    assert not statuses
    os.kill(engine, signal.SIGKILL)
    watcher.join(60)
    assert statuses == [1]
    assert process.poll() is not None


def test_arguments_without_a_place_for_backends_are_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        sidecar.main(["--model-repository=/nowhere"])
    assert ended.value.code == 1
    assert "--backend-directory" in capsys.readouterr().err


def test_it_asks_where_the_server_listens():
    arguments = ["--http-port=8101", "--http-address=127.0.0.1", "--grpc-port=8001"]
    assert sidecar.ready_url(arguments) == "http://127.0.0.1:8101/v2/health/ready"
