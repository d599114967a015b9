"""The bench against the running server: one short scenario, and what it writes."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration


def test_s1_is_measured_and_written(server, tmp_path):
    command = [sys.executable, "-m", "serving.bench", "s1", "--quick", "--name", "t", "--out", str(tmp_path)]
    command += ["--url", server.http_url, "--grpc", server.grpc_address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads((tmp_path / "t.json").read_text())["results"][0]
    verdicts = {each["what"]: each for each in found["verdicts"]}
    assert verdicts["masks that were wrong or failed"]["measured"] == 0
    rates = found["raw"]["warm"]["rates"]
    assert all(rate > 0 for values in rates.values() for rate in values)
    assert set(rates) == {
        "bare decoder beside http",
        "bare decoder beside grpc",
        "http, K = 1",
        "http, K = 8",
        "grpc, K = 1",
        "grpc, K = 8",
    }
    assert "S1: interactive sessions" in (tmp_path / "t.md").read_text()
    assert done.stdout.count("target") == len(found["verdicts"])
