"""A collector of spans for tests: OTLP over HTTP, as the real exporters speak it."""

import base64
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


class Collector:
    """A context manager. `url`: what settings name; `spans()`: (service, span) of all that came."""

    def __init__(self):
        self._came = []
        self._lock = threading.Lock()

    def __enter__(self):
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                is_json = "json" in self.headers.get("content-type", "")
                request = from_json(body) if is_json else ExportTraceServiceRequest.FromString(body)
                with collector._lock:
                    collector._came.append(request)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *said):
                """Quietly."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def spans(self):
        with self._lock:
            came = list(self._came)
        return [
            (service(resource.resource), span)
            for request in came
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def text(self):
        """Everything that came, to be searched."""
        with self._lock:
            return "\n".join(str(request) for request in self._came)


def from_json(body):
    """OTLP's JSON, which Triton sends, writes ids as hexadecimal digits where protobuf's own has base64."""

    def mended(value):
        if isinstance(value, list):
            return [mended(each) for each in value]
        if not isinstance(value, dict):
            return value
        ids = ("traceId", "spanId", "parentSpanId")
        return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ids else mended(v) for k, v in value.items()}

    return json_format.ParseDict(mended(json.loads(body)), ExportTraceServiceRequest(), ignore_unknown_fields=True)


def service(resource):
    return next((each.value.string_value for each in resource.attributes if each.key == "service.name"), "")


def attributes(span):
    """{name: value as text} of a span."""
    return {each.key: each.value.string_value or str(each.value.int_value) for each in span.attributes}
