"""Where the parts of a running server show their metrics, and what they show."""

import re
from pathlib import Path

import httpx
from running import command_line


def medserve(server):
    return httpx.get(f"{server.http_url}/metrics", timeout=30).text


def triton(server):
    found = re.search(r"--metrics-port=(\d+)", command_line(server.one("/tritonserver ")))
    return httpx.get(f"http://127.0.0.1:{found[1]}/metrics", timeout=30).text


def ray(server):
    """Of the node's agent, which shows what Ray Serve's processes report to it every few seconds."""
    (port,) = run_dir(server).glob("ray/session_latest/metrics_export_port_*")
    return httpx.get(f"http://127.0.0.1:{port.read_text().strip()}/metrics", timeout=30).text


def run_dir(server):
    return Path("/tmp") / f"medserve-{server.pid}"


def names(text):
    """The names that a query may use: of samples, as they are written."""
    return {re.match(r"[a-zA-Z_:][a-zA-Z0-9_:]*", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
