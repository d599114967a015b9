"""The exporter answers /metrics and nothing else."""

import threading
import urllib.error
import urllib.request

import pytest

from serving.deploy import exporter


def test_metrics_and_nothing_else():
    server = exporter.serve(0, "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
            assert answer.headers["Content-Type"] == exporter.TYPE
            assert b"# TYPE medserve_requests_total counter" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/", timeout=60)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
