"""Spans of OpenTelemetry. This module needs the extra `otel`; `ledger/traces.py` imports it where traces are on.

Names and attributes follow the semantic conventions of OpenTelemetry for HTTP and messaging. Attributes hold no
personal data: no path, no address of a caller, no id of an event, no text of an error and no amount. Context is
propagated by W3C Trace Context.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager, nullcontext
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span, SpanContext
    from opentelemetry.util.types import AttributeValue

    from ledger.traces import Delivery

    type _Attributes = dict[str, AttributeValue]

NAME = "resolution-ledger"
"""The name of the service where the environment names none, and of the instrumentation."""
PARENT, STATE = "traceparent", "tracestate"
_ATTRIBUTE = b'"traceparent"'
_IN_HEADERS = {PARENT: PARENT, STATE: STATE, f"ce-{PARENT}": f"ce-{PARENT}"}
_LONGEST = 512
"""The most characters of a header; W3C Trace Context asks for at least 512 of a `tracestate`."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLOSE_SECONDS = 2.0
_SERVER_ERROR, _CLIENT_ERROR = 500, 400
_propagator = TraceContextTextMapPropagator()
logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)  # warnings quote the headers of senders


class _Fault(msgspec.Struct):
    code: str = ""


class _Answer(msgspec.Struct):
    outcome: str = ""
    position: int = 0
    error: _Fault | None = None


_answer_decoder = msgspec.json.Decoder(_Answer)
_decoder = msgspec.json.Decoder()


def remote_context(headers: Iterable[tuple[str, str]]) -> Context:
    """Return the trace context in the headers of a message, or an empty one.

    Names have no case. A header that is invalid, too long or sent twice counts as absent. A CloudEvent in binary mode
    may have the context in `ce-traceparent`; a `traceparent` is the newer one, because transports set it.
    """
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if (known := _IN_HEADERS.get(name.lower())) is not None:
            found.setdefault(known, []).append(value)
    parents = found.get(PARENT) or found.get(f"ce-{PARENT}") or []
    if len(parents) != 1 or len(parents[0]) > _LONGEST:
        return Context()
    carrier = {PARENT: parents}
    if STATE in found and sum(map(len, found[STATE])) <= _LONGEST:
        carrier[STATE] = found[STATE]
    return _propagator.extract(carrier, Context())


def remote_span(context: Context) -> SpanContext | None:
    """Return the span context in a context; none without a valid one."""
    span = trace.get_current_span(context).get_span_context()
    return span if span.is_valid else None


def header_pairs(raw: bytes) -> list[tuple[str, str]]:
    """Return the headers of a NATS header block in order."""
    lines = (line.partition(":") for line in raw.decode("latin-1").split("\r\n")[1:])
    return [(name.strip(), value.strip(" \t")) for name, _, value in lines]


def _contexts_of(headers: bytes, data: bytes) -> Iterator[SpanContext]:
    """Yield the span contexts of a message: that of its headers, or those of its events."""
    if headers and (found := remote_span(remote_context(header_pairs(headers)))) is not None:
        yield found
    elif _ATTRIBUTE in data:
        try:
            message = _decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        for event in message if isinstance(message, list) else [message]:
            if isinstance(event, dict) and isinstance(parent := event.get(PARENT), str):
                found = remote_span(remote_context([(PARENT, parent)]))
                if found is not None:
                    yield found


def _template(subject: str) -> tuple[str, str]:
    """Return a subject with ``{source}`` for the token of its source, and that token.

    Example: ``resolution.decide.crm.action`` -> ``resolution.decide.{source}.action``, ``crm``.
    """
    tokens = subject.split(".")
    source, tokens[2:3] = tokens[2] if len(tokens) > 2 else "", ["{source}"]  # noqa: PLR2004 - its place in all of them
    return ".".join(tokens), source


def _messaging(operation: str, subject: str) -> _Attributes:
    """Return the attributes of sending or processing a message of a subject, which is a template."""
    return {
        "messaging.system": "nats",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.template": subject,
    }


def _note_failure(span: Span, kind: str) -> None:
    """Note an error by its type; its text may quote the input."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


@contextmanager
def _entered(span: Span) -> Iterator[Span]:
    """Make a span the current one, and end it."""
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except Exception as error:
            _note_failure(span, type(error).__name__)
            raise


class RequestSpan:
    """The span of a request, from its arrival to its answer."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = (
            f"00-{trace.format_trace_id(context.trace_id)}-{trace.format_span_id(context.span_id)}"
            f"-{context.trace_flags:02x}"
        ).encode()
        """Its context in the form of W3C Trace Context."""
        self.recorded = self.traceparent if context.trace_flags.sampled else b""
        """The context for events that the request causes; empty if the trace is not sent."""

    def note(self, answer: bytes) -> None:
        """Note the outcome and the position in an answer."""
        try:
            found = _answer_decoder.decode(answer)
        except msgspec.MsgspecError:  # an answer without these fields, such as a list
            return
        if found.outcome:
            self._span.set_attribute("resolution_ledger.outcome", found.outcome)
        if found.position:
            self._span.set_attribute("resolution_ledger.position", found.position)
        if found.error is not None:
            _note_failure(self._span, found.error.code)

    def end(self) -> None:
        """End the span."""
        self._span.end()

    def answer(self, give: Callable[[bytes], None], answer: bytes) -> None:
        """Give the answer, then end the span."""
        give(answer)
        self.note(answer)
        self.end()


class Spans:
    """Makes the spans of a process.

    The provider is not the global one of the process: spans of other libraries may have personal data as attributes.
    """

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer(NAME, version)

    @classmethod
    def exported(cls, version: str) -> Spans:
        """Return spans that are sent by OTLP over HTTP, with the SDK's settings in the environment."""
        attributes = {"service.version": version}
        if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            attributes["service.name"] = NAME
        provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider, version)

    def close(self) -> None:
        """Send the last spans, for at most some seconds: a collector that is away must not delay the end."""
        closing = Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)

    @contextmanager
    def serving(
        self, method: str, scheme: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> Iterator[Callable[[str | None, int], None]]:
        """Yield a function that notes the route and the status of the answer to a request over HTTP."""
        known = method if method in _METHODS else "_OTHER"
        name = known if method in _METHODS else "HTTP"
        parent = remote_context((header.decode("latin-1"), value.decode("latin-1")) for header, value in headers)
        attributes: _Attributes = {"http.request.method": known, "url.scheme": scheme}
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)

        def answered(route: str | None, status: int) -> None:
            span.set_attribute("http.response.status_code", status)
            if route is not None:
                span.set_attribute("http.route", route)
                span.update_name(f"{name} {route}")
            if status >= _SERVER_ERROR:
                _note_failure(span, str(status))

        with _entered(span):
            yield answered

    @contextmanager
    def sending(self, subject: str, headers: Mapping[str, str] | None) -> Iterator[Mapping[str, str]]:
        """Yield the headers for a message that is sent in the current trace; see ``traces.sending``."""
        template, source = _template(subject)
        attributes = _messaging("send", template) | {"resolution_ledger.source": source}
        span = self._tracer.start_span(f"send {template}", None, SpanKind.PRODUCER, attributes)
        with _entered(span):
            carrier = dict(headers or {})
            _propagator.inject(carrier)
            yield carrier

    def request(self, subject: str, headers: bytes) -> RequestSpan:
        """Return the span of a request that has just arrived, with its raw headers; it ends with its answer."""
        return RequestSpan(self._request(subject, header_pairs(headers)))

    def _request(self, subject: str, headers: Iterable[tuple[str, str]]) -> Span:
        template, source = _template(subject)
        attributes = _messaging("process", template) | {"resolution_ledger.source": source}
        return self._tracer.start_span(f"process {template}", remote_context(headers), SpanKind.CONSUMER, attributes)

    @contextmanager
    def processing(self, subject: str, headers: Mapping[str, str]) -> Iterator[RequestSpan]:
        """Yield the span of a request, as the current one; see ``traces.processing``."""
        with _entered(self._request(subject, headers.items())) as span:
            yield RequestSpan(span)

    def current_request(self) -> RequestSpan | None:
        """Return the span of the request that the current task answers."""
        span = trace.get_current_span()
        return RequestSpan(span) if span.get_span_context().is_valid else None

    def batch(
        self, destination: str, reader: str, messages: Iterable[tuple[bytes, bytes]]
    ) -> AbstractContextManager[object]:
        """Return a context for processing a batch; see ``traces.batch``."""
        count = 0
        found: dict[tuple[int, int], SpanContext] = {}
        for headers, data in messages:
            count += 1
            found |= {(one.trace_id, one.span_id): one for one in _contexts_of(headers, data)}
        links = [Link(context) for context in found.values() if context.trace_flags.sampled]
        if not links:
            return nullcontext()
        attributes: _Attributes = {
            "messaging.system": "nats",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": destination,
            "messaging.consumer.group.name": reader,
            "messaging.batch.message_count": count,
        }
        name = f"process {destination}"
        return _entered(self._tracer.start_span(name, Context(), SpanKind.CONSUMER, attributes, links))

    def delivery(self, url: str, event: Mapping[str, object]) -> AbstractContextManager[Delivery] | None:
        """Return a context for one attempt to deliver an event; none if the event has no trace."""
        parent = event.get(PARENT)
        context = remote_context([(PARENT, parent)]) if isinstance(parent, str) else Context()
        return None if remote_span(context) is None else self._delivery(url, event, context)

    @contextmanager
    def _delivery(self, url: str, event: Mapping[str, object], parent: Context) -> Iterator[Delivery]:
        at = urlsplit(url)
        attributes: _Attributes = {
            "http.request.method": "POST",
            "server.address": at.hostname or "",
            "server.port": at.port or (443 if at.scheme == "https" else 80),
            "cloudevents.event_type": str(event["type"]),
        }
        if isinstance(position := event.get("position"), int):
            attributes["resolution_ledger.position"] = position
        with _entered(self._tracer.start_span("POST", parent, SpanKind.CLIENT, attributes)) as span:
            yield _TracedDelivery(span)

    @staticmethod
    def current_ids() -> dict[str, str]:
        """Return the ids of the current span as fields of a line of a log; none without one."""
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return {}
        return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


class _TracedDelivery:
    """One attempt to deliver an event, in a span."""

    def __init__(self, span: Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(span, Context()))
        self.headers = carrier

    def answered(self, status: int) -> None:
        """Note the HTTP status of the receiver's answer."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= _CLIENT_ERROR:
            _note_failure(self._span, str(status))
