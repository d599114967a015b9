"""Locust's users heed what a refusal asks for, and send an image again whose Features are gone."""

import http.server
import json
import os
import subprocess
import sys
import threading
from itertools import count

import pytest

from serving.settings import CHECKOUT

WAIT_S = 0.05


class Moody(http.server.BaseHTTPRequestHandler):
    """Of five prompts it refuses one and has forgotten the image of the next."""

    protocol_version = "HTTP/1.1"
    prompts = count()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        place = -1 if self.path == "/v1/images" else next(self.prompts) % 5
        said = {1: (503, "pool_full"), 2: (404, "send_image_again")}.get(place)
        body = json.dumps({"image_id": "h", "error": {"code": said[1] if said else ""}}).encode()
        self.send_response(said[0] if said else 200)
        self.send_header("retry-after", str(WAIT_S))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_users_with_retries_get_every_answer(url, tmp_path):
    files = f"{CHECKOUT / 'loadtests' / 'locustfile.py'},{CHECKOUT / 'tests' / 'written_calls.py'}"
    command = [sys.executable, "-m", "locust", "-f", files, "--headless", "--host", url, "-u", "1", "-t", "3s"]
    command += ["--think", "0.01", "--retries", "2", "S1Http"]
    environ = {**os.environ, "CALLS": str(tmp_path / "calls")}
    subprocess.run(command, capture_output=True, env=environ, check=False, timeout=120)
    calls = [json.loads(line)[2:] for line in (tmp_path / "calls").read_text().splitlines()]
    assert {failure for kind, _, _, failure in calls if kind == "HTTP"} == {None}
    assert {kind for kind, *_ in calls} == {"HTTP", "refused", "again"}
    assert max(ms for kind, name, ms, _ in calls if kind == "HTTP" and "prompt" in name) >= 1000 * WAIT_S, (
        "its wait is its call's"
    )
