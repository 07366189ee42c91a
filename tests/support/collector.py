"""A collector of traces that keeps every span it is sent: OTLP over HTTP, read as its own protobuf messages."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class CollectedSpan:
    """What the tests look at."""

    name: str
    trace: str
    id: str
    parent: str
    role: str
    attributes: dict[str, str]
    failed: bool


class Collector:
    """``address`` is what OTEL_EXPORTER_OTLP_ENDPOINT wants."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._spans: list[CollectedSpan] = []
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        spans = [
            CollectedSpan(
                name=span.name,
                trace=span.trace_id.hex(),
                id=span.span_id.hex(),
                parent=span.parent_span_id.hex(),
                role=next((one.value.string_value for one in sent.resource.attributes if one.key == "sluice.role"), ""),
                attributes={one.key: one.value.string_value or str(one.value) for one in span.attributes},
                failed=span.status.code == 2,
            )
            for sent in request.resource_spans
            for scope in sent.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += spans

    def trace(self, trace: str) -> list[CollectedSpan]:
        with self._lock:
            return [span for span in self._spans if span.trace == trace]

    def named(self, name: str, **attributes: str) -> list[CollectedSpan]:
        wanted = {f"sluice.{key}": value for key, value in attributes.items()}
        with self._lock:
            return [span for span in self._spans if span.name == name and wanted.items() <= span.attributes.items()]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - so it is called
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
