"""Traces by OpenTelemetry. They are off, and cost nothing, unless ``exported`` turns them on.

`ledger/spans.py` makes the spans. Only ``exported`` imports it, because it needs the extra `otel`.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from ledger.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from ledger.spans import RequestSpan, Spans

_log = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

spans: Spans | None = None
"""Makes the spans of this process; ``None`` where traces are off."""


def is_configured(environment: Mapping[str, str]) -> bool:
    """Return whether OpenTelemetry's variables ask for traces: one names an endpoint, and none turns traces off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return False
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)


@asynccontextmanager
async def exported(version: str) -> AsyncIterator[None]:
    """Send traces of this process as long as the context lasts, if the environment asks for them.

    ``version`` is the ledger's. Without the extra `otel`, or with wrong values, a warning is logged: the variables may
    be those of a whole cluster.
    """
    global spans  # noqa: PLW0603 - whether a process traces is a property of the process
    if not is_configured(os.environ):
        yield
        return
    try:
        from ledger.spans import Spans
    except ModuleNotFoundError:
        _log.warning("an endpoint for traces is set, but none are sent: %s", MissingExtraError("Traces", "otel"))
        yield
        return
    try:
        spans = Spans.exported(version)
    except ValueError as error:  # the library's own, which names the variable's value
        _log.warning("an endpoint for traces is set, but none are sent: a variable OTEL_* has a wrong value: %s", error)
        yield
        return
    try:
        yield
    finally:
        spans.close()
        spans = None


def client_headers() -> dict[str, str] | None:
    """Return the headers for the trace of the program that calls the client; ``None`` if it has none."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers or None


def sending(subject: str, headers: Mapping[str, str] | None = None) -> AbstractContextManager[Mapping[str, str] | None]:
    """Return a context for sending a message to a subject of a source; it yields the headers to send."""
    return nullcontext(headers) if spans is None else spans.sending(subject, headers)


def processing(subject: str, headers: Mapping[str, str] | None) -> AbstractContextManager[RequestSpan | None]:
    """Return a context for answering a request; it yields the request's span."""
    return nullcontext() if spans is None else spans.processing(subject, headers or {})


def batch(destination: str, reader: str, messages: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[object]:
    """Return a context for processing a batch: one span, linked to the traces of its messages; none without them.

    ``messages`` are raw headers, or none, and an event each. ``reader`` names the consumer.
    """
    return nullcontext() if spans is None else spans.batch(destination, reader, messages)


class Delivery(Protocol):
    """One attempt to deliver an event to a receiver."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers to send with it."""
        ...

    def answered(self, status: int) -> None:
        """Note the HTTP status of the receiver's answer."""


class _UntracedDelivery:
    headers: Mapping[str, str] = {}

    def answered(self, status: int) -> None:
        pass


_UNTRACED = _UntracedDelivery()


def delivery(url: str, event: Mapping[str, object]) -> AbstractContextManager[Delivery]:
    """Return a context for one attempt to deliver an event by HTTP; it has a span if the event has a trace."""
    traced = None if spans is None else spans.delivery(url, event)
    return nullcontext(_UNTRACED) if traced is None else traced
