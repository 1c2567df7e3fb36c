"""Traces: the variables that turn them on, the contexts that count, and the lines of the log."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.json_logs import JsonFormatter
from ledger import traces
from ledger.spans import Spans, remote_context, remote_span
from ledger.store.cloudevents import with_traceparent, without_traceparent
from tests.support.otlp_collector import kept_spans

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Turn traces on in this process; return the spans that would be sent."""
    with kept_spans() as kept:
        yield kept


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),  # empty is unset, by the specification
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "1"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_SERVICE_NAME": "ledger"}, False),
    ],
)
def test_the_standard_variables_turn_traces_on(environment: dict[str, str], *, expected: bool) -> None:
    """OpenTelemetry specification: general SDK configuration, and the OTLP exporter."""
    assert traces.is_configured(environment) is expected


def test_a_header_that_cannot_be_read_is_not_quoted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert remote_span(remote_context([("traceparent", VALID), ("tracestate", "a secret text")])) is not None
    assert remote_span(remote_context([("traceparent", VALID * 10)])) is None
    assert caplog.text == ""


@given(
    parent=st.one_of(st.text(max_size=80), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")),
    state=st.one_of(st.text(max_size=600), st.from_regex(r"[a-z0-9]+=.*(,[a-z]+@[a-z]+=.*)*")),
    body=st.binary(max_size=40),
)
def test_no_context_of_a_sender_is_an_error(parent: str, state: str, body: bytes) -> None:
    found = remote_span(remote_context([("traceparent", parent), ("tracestate", state)]))
    if found is not None:
        sent: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(sent, set_span_in_context(NonRecordingSpan(found)))
        assert len(sent["traceparent"]) == len(VALID)
        assert all(one.isascii() and one.isprintable() for one in sent.values())
    raw = b"NATS/1.0\r\ntraceparent:" + parent.encode(errors="replace") + b"\r\n" + body + b"\r\n\r\n"
    with kept_spans(), traces.batch("INBOX", "intake", [(raw, body), (b"", b'{"traceparent":' + body)]):
        pass


async def test_without_the_extra_a_warning_names_it_and_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "ledger.spans")
    async with traces.exported("1"):
        assert traces.spans is None
    assert "pip install 'resolution-ledger[otel]'" in caplog.text


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("traceparent", VALID)], True),
        ([("TraceParent", VALID)], True),
        ([("ce-traceparent", VALID)], True),
        ([("traceparent", f"01-{TRACE}-{PARENT}-01-later")], True),  # a later version may add fields at the end
        ([("traceparent", VALID), ("Traceparent", VALID)], False),
        ([("traceparent", VALID), ("tracestate", "x" * 600)], True),
        ([("tracestate", "vendor=1")], False),
        ([("traceparent", VALID + " " * 600)], False),
        ([], False),
    ],
)
def test_the_context_of_a_message_is_in_one_valid_header(headers: list[tuple[str, str]], *, expected: bool) -> None:
    found = remote_span(remote_context(headers))
    assert (found is not None) is expected
    if found is not None:
        assert (f"{found.trace_id:032x}", f"{found.span_id:016x}") == (TRACE, PARENT)
        assert len(found.trace_state) == 0


def test_a_request_that_nobody_will_see_leaves_no_context_in_events(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = Spans(TracerProvider(sampler=ALWAYS_OFF), "1")
    request = spans.request("resolution.decide.till.action", b"NATS/1.0\r\ntraceparent: %b\r\n\r\n" % VALID.encode())
    assert request.recorded == b""
    assert request.traceparent.startswith(f"00-{TRACE}-".encode())
    assert request.traceparent.endswith(b"-00")


def test_a_batch_has_one_span_with_a_link_for_each_context(exporter: InMemorySpanExporter) -> None:
    """A batch in JSON, an event with its attribute, one in data alone, one twice, one not sampled, one without."""
    event = b'{"specversion":"1.0","traceparent":"%b"}'
    other = f"00-{TRACE[::-1]}-{PARENT}-01".encode()
    with traces.batch(
        "LEDGER",
        "guard",
        [
            (b"", b"[%b,%b]" % (event % VALID.encode(), event % other)),
            (b"", event % other),
            (b"", b'{"data":{"traceparent":"00-%b-%b-01"}}' % (b"1" * 32, b"1" * 16)),
            (b"", event % f"00-{'2' * 32}-{PARENT}-00".encode()),
            (b"", b'{"traceparent":7}'),
            (b"", b'{"traceparent":'),
            (b"", b"{}"),
        ],
    ):
        pass
    with traces.batch("LEDGER", "guard", [(b"", b"{}")]):
        pass
    (span,) = exporter.get_finished_spans()
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE, TRACE[::-1]]
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 7
    assert span.parent is None


def test_lines_of_the_log_name_the_current_span(exporter: InMemorySpanExporter) -> None:
    """OpenTelemetry specification: trace context in non-OTLP log formats."""
    record = logging.makeLogRecord({"name": "ledger.x", "levelname": "WARNING", "msg": "late"})
    formatter = JsonFormatter("intake")
    assert not {"trace_id", "span_id"} & json.loads(formatter.format(record)).keys()
    with traces.processing("resolution.read.till.brief", {"traceparent": VALID}):
        line = json.loads(formatter.format(record))
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert (line["trace_id"], line["span_id"]) == (TRACE, f"{span.context.span_id:016x}")


def test_an_error_is_noted_by_its_type_alone(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"), traces.sending("resolution.inbox.till"):
        raise ValueError("secret")
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ValueError"
    assert "secret" not in span.to_json()


@pytest.mark.parametrize("event", [b'{"id":"1","data":{}}', b'{"data":{"traceparent":"' + VALID.encode() + b'"}}'])
def test_a_trace_can_be_taken_out_of_an_event_again(event: bytes) -> None:
    traced = with_traceparent(event, VALID.encode())
    assert json.loads(traced) == json.loads(event) | {"traceparent": VALID}
    assert without_traceparent(traced) == event
    assert without_traceparent(event) == event
