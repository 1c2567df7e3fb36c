"""Collectors of traces: OTLP over HTTP, decoded by the protocol's own classes; or in memory, of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ledger import traces
from ledger.spans import Spans


class ReceivedSpan(NamedTuple):
    """A span as it was sent: ids are lower-case hexadecimal, and empty where there is none."""

    trace_id: str
    span_id: str
    parent: str
    name: str
    kind: str
    attributes: Mapping[str, object]
    links: frozenset[tuple[str, str]]
    """The trace and the span of each link."""
    service: str
    failed: bool


class Collector:
    """An HTTP server on loopback that receives traces."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf"):
                    collector.bodies.append(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[Collector]:
        """Serve as long as the context lasts."""
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def spans(self) -> list[ReceivedSpan]:
        """Return all spans that were received."""
        return [
            _received(span, {one.key: one.value.string_value for one in resource.resource.attributes})
            for body in list(self.bodies)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def _received(span: Span, resource: Mapping[str, str]) -> ReceivedSpan:
    return ReceivedSpan(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in span.attributes},
        frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        resource.get("service.name", ""),
        span.status.code == span.status.STATUS_CODE_ERROR,
    )


@contextmanager
def kept_spans() -> Iterator[InMemorySpanExporter]:
    """Turn traces on in this process, and keep the spans."""
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    traces.spans = Spans(provider, "1")
    try:
        yield kept
    finally:
        traces.spans = None
