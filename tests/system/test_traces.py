"""Traces of a running `up`, as a collector receives them; from the texts of W3C Trace Context and CloudEvents."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from opentelemetry import context
from opentelemetry.semconv._incubating.attributes import cloudevents_attributes, messaging_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.runtime.redecide import redecide_log
from app.runtime.session import Session
from config.settings import load_settings
from dashboard.auth.tokens import Tokens
from domain.events.facts import FACTS
from domain.serialization import personal_fields
from ledger.nats.connection_options import ConnectionOptions
from resolution_ledger import ActionRequest, Client, Money
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY
from tests.support.otlp_collector import Collector, ReceivedSpan
from tests.support.up_process import UpProcess
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually
from tests.support.webhook_receiver import Receiver, receiver

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, 3.2.2: version 00."""
SECRET = "verysecret"
"""Stands in every id, name and text that is sent; no span may hold it."""
OTHERS = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""
"""A global provider, as `opentelemetry-instrument` sets one: spans of libraries, with paths and addresses, would be sent."""
HOSTILE = {
    "not hexadecimal": "00-" + "g" * 32 + "-b7ad6b7169203331-01",
    "upper case": "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
    "trace of zeros": "00-" + "0" * 32 + "-b7ad6b7169203331-01",
    "span of zeros": "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    "version ff": "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "more than version 00 has": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-" + SECRET,
    "JSON": '00-","data":{"' + SECRET,
    "long": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" + SECRET * 1000,
    "empty": "",
}


class Traced:
    """A running `up` that sends its traces, with the means of a source and of an operator."""

    def __init__(self, session: Session, collector: Collector, http: httpx.AsyncClient, hooks: Receiver) -> None:
        self.session, self.collector, self.http, self.hooks = session, collector, http, hooks
        self._traces = 0

    def new_trace(self) -> tuple[str, str]:
        """Return a trace and a `traceparent` in it, whose parent is the span `b7ad6b7169203331`."""
        self._traces += 1
        trace = f"0af7651916cd43dd8448eb211c80{self._traces:04x}"
        return trace, f"00-{trace}-b7ad6b7169203331-01"

    async def act(self, headers: Sequence[tuple[str, str]]) -> Document:
        """Request an action over HTTP; return its answer."""
        answer = await self.http.post("/api/v1/decisions/action", json=action(), headers=list(headers))
        assert answer.status_code == 200, answer.text
        found: Document = answer.json()
        assert found["outcome"] == "taken"
        return found

    async def recorded(self, position: int) -> Document:
        """Return a recorded event."""
        found = await self.session.log.at(position)
        assert found is not None
        stored: Document = json.loads(found.data)
        return stored

    async def spans(self, holds: Callable[[list[ReceivedSpan]], object]) -> list[ReceivedSpan]:
        """Wait until the spans received so far hold; return them."""

        async def look() -> list[ReceivedSpan]:
            return self.collector.spans()

        return await eventually(look, holds, 60, every_seconds=0.1)


_numbers = count(1)


def new_name() -> str:
    """Return an id that is new, also where a test runs once more on the same ledger."""
    return f"{SECRET}-{next(_numbers)}"


def action() -> Document:
    """Return a new request with personal data in every field that can have some."""
    return {
        "request_id": new_name(),
        "agent_id": f"{SECRET}-agent",
        "customer_id": f"{SECRET}-customer",
        "interaction_id": f"{SECRET}-interaction",
        "kind": "refund",
        "amount": gbp("0.77"),
        "reason": f"{SECRET} reason",
    }


@asynccontextmanager
async def up_with_traces(data_dir: Path, collector: Collector) -> AsyncIterator[Session]:
    """Run `up` with OpenTelemetry's own settings, and yield a session beside it."""
    site = data_dir.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(OTHERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_SERVICE_NAME", "ledger-of-tests")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        patch.setenv("PYTHONPATH", str(site))
        up = UpProcess(data_dir, "--webhooks-to-private", "--port", "0")
    try:
        up.wait_until_up()
        async with Session(load_settings({"data_dir": str(data_dir)}, {})) as session:
            yield session
    finally:
        assert up.stop() == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traced]:
    """Return a running ledger with traces, a policy and an agent."""
    data_dir = tmp_path_factory.mktemp("traced") / "data"
    with Collector().running() as collector:
        async with receiver() as hooks, up_with_traces(data_dir, collector) as session:
            upstream = Upstream(session, await session.upstream("test"), "till")
            policy = BASIC_POLICY | {"default_role": "agent"}
            assert (await upstream.ask("policy", request_id="p", policy=policy, published_by=SECRET))[
                "outcome"
            ] == "done"
            connection = json.loads((data_dir / "connection.json").read_text())
            token = await Tokens(session.client).make("till", "source", None, None, "till")
            async with (
                httpx.AsyncClient(base_url=connection["http_url"], timeout=20) as http,
                httpx.AsyncClient(
                    base_url=connection["http_url"],
                    headers={"Authorization": f"Bearer {connection['http_token']}"},
                    timeout=20,
                ) as operator,
            ):
                http.headers["Authorization"] = f"Bearer {token}"
                wanted = {"url": f"{hooks.url}?key={SECRET}", "types": ["resolution.action.taken.v1"]}
                made = await operator.post("/api/v1/webhooks", json=wanted)
                assert made.status_code == 201, made.text
                yield Traced(session, collector, http, hooks)


def one(spans: list[ReceivedSpan], name: str, trace: str) -> ReceivedSpan:
    """Return the only span of a trace with a name."""
    (found,) = [span for span in spans if span.name == name and span.trace_id == trace]
    return found


def has_span(name: str, trace: str, spans: list[ReceivedSpan]) -> bool:
    """Return whether a span of a trace with a name was received."""
    return any(span.name == name and span.trace_id == trace for span in spans)


def readers(spans: list[ReceivedSpan], trace: str) -> dict[str, ReceivedSpan]:
    """Return the batches with a link to a trace, by their reader."""
    return {
        str(span.attributes["messaging.consumer.group.name"]): span
        for span in spans
        if any(linked == trace for linked, _ in span.links)
    }


async def test_one_trace_leads_from_a_request_over_http_to_views_and_a_webhook(traced: Traced) -> None:
    trace, traceparent = traced.new_trace()
    position = (await traced.act([("traceparent", traceparent), ("tracestate", "vendor=kept")]))["position"]
    spans = await traced.spans(
        lambda spans: (
            readers(spans, trace).keys() > {"guard", "audit_trail"}
            and any((span.name, span.trace_id) == ("POST", trace) for span in spans)
        )
    )
    served = one(spans, "POST /api/v1/decisions/action", trace)
    sent = one(spans, "send resolution.decide.{source}.action", trace)
    decided = one(spans, "process resolution.decide.{source}.action", trace)
    delivered = one(spans, "POST", trace)
    assert [span.parent for span in (served, sent, decided, delivered)] == [
        "b7ad6b7169203331",
        served.span_id,
        sent.span_id,
        decided.span_id,
    ]
    assert [span.kind for span in (served, sent, decided, delivered)] == ["SERVER", "PRODUCER", "CONSUMER", "CLIENT"]
    assert not any(span.failed for span in spans if span.trace_id == trace)
    assert {span.service for span in spans} == {"ledger-of-tests"}
    stored = await traced.recorded(position)
    assert stored["traceparent"] == f"00-{trace}-{decided.span_id}-01"
    assert "tracestate" not in stored
    for reader in readers(spans, trace).values():
        assert (reader.name, reader.kind) == ("process LEDGER", "CONSUMER")
        assert (trace, decided.span_id) in reader.links
        assert reader.trace_id != trace
    received = next(one for one in traced.hooks.accepted if one.event["position"] == position)
    assert received.headers["traceparent"] == f"00-{trace}-{delivered.span_id}-01"
    assert decided.attributes["resolution_ledger.outcome"] == "taken"
    assert decided.attributes["resolution_ledger.position"] == position
    assert served.attributes["http.response.status_code"] == 200


async def test_a_request_over_nats_belongs_to_the_trace_in_its_headers(traced: Traced) -> None:
    """Go's library writes the name with a capital letter."""
    client = await traced.session.upstream("another")
    for header in ("traceparent", "Traceparent"):
        trace, traceparent = traced.new_trace()
        body = json.dumps(action()).encode()
        reply = await client.request("resolution.decide.till.action", body, timeout=10, headers={header: traceparent})
        stored = await traced.recorded(json.loads(reply.data)["position"])
        assert stored["traceparent"].startswith(f"00-{trace}-")
        name = "process resolution.decide.{source}.action"
        spans = await traced.spans(partial(has_span, name, trace))
        assert one(spans, name, trace).parent == "b7ad6b7169203331"


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_traceparent_is_neither_an_error_nor_recorded(traced: Traced, name: str) -> None:
    hostile, client = HOSTILE[name], await traced.session.upstream("hostile")
    reply = await client.request(
        "resolution.decide.till.action", json.dumps(action()).encode(), headers={"traceparent": hostile}
    )
    answers = [json.loads(reply.data)]
    if hostile and len(hostile) < 1000:  # others are no HTTP header, or larger than a head may be
        answers.append(await traced.act([("traceparent", hostile)]))
    for answer in answers:
        assert answer["outcome"] == "taken"
        stored = await traced.recorded(answer["position"])
        assert TRACEPARENT.fullmatch(stored["traceparent"])
        assert not stored["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c")


async def test_two_traceparents_begin_a_new_trace(traced: Traced) -> None:
    """W3C Trace Context, 3.2: a vendor that receives more than one does not choose among them."""
    traces = dict([traced.new_trace(), traced.new_trace()])
    answer = await traced.act([("traceparent", one) for one in traces.values()])
    stored = await traced.recorded(answer["position"])
    assert stored["traceparent"][3:35] not in traces


async def test_a_fact_keeps_the_context_of_its_sender_and_the_intake_links_to_it(traced: Traced) -> None:
    """CloudEvents, Distributed Tracing extension: the attribute is the context in which the event was made."""
    made, of_event = traced.new_trace()
    sent, of_transport = traced.new_trace()
    fact = event(new_name(), "purchase.completed", "till", order_id=f"{SECRET}-order", total=gbp("0.77"))
    client = await traced.session.upstream("facts")
    upstream = Upstream(traced.session, client, "till")
    position = await upstream.record(fact | {"traceparent": of_event})
    answer = await traced.http.post(
        "/api/v1/events",
        content=json.dumps(fact | {"id": new_name()}),
        headers={"Content-Type": "application/cloudevents+json", "traceparent": of_transport},
    )
    assert answer.status_code == 202, answer.text
    spans = await traced.spans(
        lambda spans: (
            "intake" in readers(spans, made) and "guard" in readers(spans, made) and "intake" in readers(spans, sent)
        )
    )
    assert (await traced.recorded(position))["traceparent"] == of_event
    assert readers(spans, made)["intake"].name == "process INBOX"
    sender = one(spans, "send resolution.inbox.{source}", sent)
    assert (sent, sender.span_id) in readers(spans, sent)["intake"].links


async def test_spans_hold_nothing_personal_and_use_the_names_of_the_conventions(traced: Traced) -> None:
    """Each personal field of each fact is sent, and each id, text and address is secret."""
    upstream = Upstream(traced.session, await traced.session.upstream("personal"), "till")
    _, traceparent = traced.new_trace()
    texts: dict[str, Document] = {
        "feedback.received": {"customer_id": "C", "instrument": "csat", "score": 1, "best": 5, "worst": 1},
        "obstacle.reported": {"obstacle_id": "O", "employee_id": "E"},
        "obstacle.answered": {"obstacle_id": "O", "answered_by": "E"},
        "idea.submitted": {"idea_id": "I", "employee_id": "E"},
        "employee.joined": {"employee_id": "E", "role": "agent", "team_ids": ["t"]},
        "employee.changed": {"employee_id": "E", "role": "agent", "team_ids": ["t"]},
        "action.reported": {"agent_id": "E", "kind": "refund", "reason": "late", "amount": gbp("0.77")},
    }
    told = {name: personal_fields(cls) for name, cls in FACTS.items() if personal_fields(cls)}
    assert {f"resolution.{name}.v1" for name in texts} == told.keys()
    for name, fields in texts.items():
        fact = event(new_name(), name, "till") | {"traceparent": traceparent}
        hidden = {key: f"{SECRET}-{value}" if key.endswith("_id") else value for key, value in fields.items()}
        fact["data"] = hidden | dict.fromkeys(told[fact["type"]], f"{SECRET} text")
        await upstream.record(fact)
    answer = await upstream.ask("action", **action(), note=f"{SECRET} note")
    assert answer["outcome"] == "taken"
    await traced.http.get(f"/api/v1/receipts/{SECRET}?customer={SECRET}")
    await traced.http.get("/api/v1/brief", params={"customer_id": SECRET, "agent_id": SECRET})
    spans = await traced.spans(
        lambda spans: {"GET /api/v1/receipts/{id:path}", "GET /api/v1/brief"} <= {span.name for span in spans}
    )
    assert not any(SECRET.encode() in body or b"0.77" in body for body in traced.collector.bodies)
    modules = (
        http_attributes,
        url_attributes,
        server_attributes,
        error_attributes,
        messaging_attributes,
        cloudevents_attributes,
    )
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    own = {"resolution_ledger.outcome", "resolution_ledger.position", "resolution_ledger.source"}
    assert {key for span in spans for key in span.attributes} <= known | own
    assert {span.attributes["messaging.system"] for span in spans if span.kind in ("PRODUCER", "CONSUMER")} == {"nats"}


async def test_the_client_passes_the_callers_trace_on(traced: Traced) -> None:
    """A program of another vendor's SDK; here the API's own context, without an SDK."""
    found, traceparent = traced.new_trace()
    token = context.attach(TraceContextTextMapPropagator().extract({"traceparent": traceparent}))
    try:
        urls: list[ConnectionOptions | str] = [traced.session.upstream_server, str(traced.http.base_url)]
        for number, url in enumerate(urls):
            key = str(traced.http.headers["Authorization"]).removeprefix("Bearer ")
            async with Client(url, source="till", token=key if number else None) as client:
                request = ActionRequest(
                    request_id=new_name(),
                    agent_id=f"{SECRET}-agent",
                    kind="refund",
                    amount=Money.parse("0.77", "GBP"),
                    reason="late",
                )
                answer = await client.decide(request)
                assert answer.position is not None
                assert (await traced.recorded(answer.position))["traceparent"][3:35] == found
    finally:
        context.detach(token)


async def test_decisions_with_traces_come_out_the_same_when_they_are_made_again(traced: Traced, tmp_path: Path) -> None:
    session = traced.session
    position = int((await traced.act([]))["position"])
    assert "traceparent" in await traced.recorded(position)
    made = await redecide_log(session.client, session.log, tmp_path, 1, position, lambda _at, _of: None)
    assert made.decisions
    assert made.differences == []
