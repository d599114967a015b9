"""`medserve doctor` as a user runs it, against the running server."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration


def doctor(*words):
    return subprocess.run([sys.executable, "-m", "serving", "doctor", *words], capture_output=True, text=True, timeout=120)


def test_a_running_server_is_well(server):
    done = doctor("--url", server.http_url, "--grpc", server.grpc_address, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {each["what"]: each for each in json.loads(done.stdout)}
    well = ("HTTP front", "gRPC front", "pool adaptive", "pool contrastive", "model litemedsam", "metrics", "server version")
    assert {what: found[what]["level"] for what in well} == dict.fromkeys(well, "ok")
    assert "Features arena" in found


def test_a_server_that_is_not_there_is_said_and_fails(server):
    done = doctor("--url", server.http_url, "--grpc", "127.0.0.1:9")
    assert done.returncode == 1
    assert "[fail] gRPC front: UNAVAILABLE" in done.stdout


def test_the_ports_of_a_running_server_are_taken(server, tmp_path):
    config = tmp_path / "settings.toml"
    port = server.http_url.rsplit(":", 1)[1]
    config.write_text(f"[http]\nport = {port}\n[grpc]\nport = 0\n")
    done = doctor("--config", str(config))
    assert f"[fail] port {port} for HTTP: taken" in done.stdout
    assert done.returncode == 1
