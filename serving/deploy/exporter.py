"""One pod's metrics: `python -m serving.deploy.exporter [PORT]` adds up what the pod's processes wrote and answers /metrics.

Behind Serve's proxy `/metrics` is answered by a router, wherever it is; a pool's pod has to be asked itself.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from serving.telemetry.metrics import of_this_process

PORT = 9095
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Exporter(BaseHTTPRequestHandler):
    """GET /metrics; anything else is not found."""

    def do_GET(self) -> None:
        """One scrape."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body = of_this_process().scrape()
        self.send_response(200)
        self.send_header("Content-Type", TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Scrapes are not news."""


def serve(port: int, host: str = "0.0.0.0") -> ThreadingHTTPServer:
    """The bound server; `serve_forever` runs it."""
    return ThreadingHTTPServer((host, port), Exporter)


if __name__ == "__main__":
    serve(int(sys.argv[1]) if len(sys.argv) > 1 else PORT).serve_forever()
