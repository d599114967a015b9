"""The load tests as a user runs them: two minutes of locust without a window, over both fronts."""

import os
import subprocess
import sys

import pytest

from serving.settings import CHECKOUT

pytestmark = pytest.mark.integration

QUIET = {**os.environ, "NO_COLOR": "1"}

# Of a shared machine no more is asked than that it answers: every mask is compared with its golden, and nothing may fail.
PATIENT = """
[all]
failed = 0.0
p99_ms = 30000

[prompt]
required = 20
"""


def locust(server, tmp_path, *arguments):
    wanted = tmp_path / "thresholds.toml"
    wanted.write_text(PATIENT)
    command = [sys.executable, "-m", "locust", "-f", str(CHECKOUT / "loadtests" / "locustfile.py"), "--headless"]
    command += ["--host", server.http_url, "--grpc", server.grpc_address, "--thresholds", str(wanted), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, env={**os.environ, "NO_COLOR": "1"}
    )


def test_two_minutes_over_both_fronts(server, tmp_path):
    report = tmp_path / "report.html"
    users = ["S1Http", "S1Grpc", "S3Http", "S3Grpc"]
    done = locust(server, tmp_path, "--shape", "ramp", "-u", "4", "-t", "120s", "--html", str(report), *users)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "pass  prompt: failed 0 <= 0" in done.stdout
    assert "MISS" not in done.stdout
    page = report.read_text()
    assert "14 labels" in page
    assert "prompt: decode_mask" in page


def test_a_missed_threshold_fails_the_run(server, tmp_path):
    done = locust(server, tmp_path, "-u", "1", "-t", "6s", "S3Http")
    assert done.returncode == 1
    assert "MISS  prompt: required 0 >= 20" in done.stdout
