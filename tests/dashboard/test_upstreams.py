"""Systems that speak HTTP: the CloudEvents HTTP binding, receipts, decisions and the brief, with a source's token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import pytest_asyncio
from cloudevents.v1.conversion import to_binary, to_structured
from cloudevents.v1.http import CloudEvent

from app.runtime.roles import running
from app.runtime.session import Session
from config.settings import load_settings
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from tests.support.builders import event, gbp, purchase
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.http_api import client_with_token
from tests.support.node_project import run_node
from tests.support.registered_sources import PROFILES, Company, company_of
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
ACTION = {"agent_id": "A-1", "kind": "refund", "amount": gbp("5.00"), "reason": "late"}


class Door:
    """The HTTP API of a company, with a token of each of its sources and of two people."""

    def __init__(self, company: Company, address: str, tokens: dict[str, str]) -> None:
        self.company, self.address, self.tokens = company, address, tokens

    @classmethod
    async def of(cls, company: Company, address: str) -> Self:
        """Make the tokens."""
        tokens = Tokens(company.session.client)
        made = {name: await tokens.make(name, "source", None, None, name) for name in PROFILES}
        made["operator"] = await tokens.make("operator", "operator", None, None)
        return cls(company, address, made | {"agent": await tokens.make("agent", "agent", "A-1", None)})

    def __call__(self, name: str) -> httpx.AsyncClient:
        """Return a client with the token of a source or person."""
        return client_with_token(self.address, self.tokens[name])

    async def receipt(self, client: httpx.AsyncClient, identifier: str) -> Document:
        """Wait until an event is recorded or rejected; return its receipt."""

        async def read() -> Document:
            answer = await client.get(f"/api/v1/receipts/{identifier}")
            assert answer.status_code == 200, answer.text
            found: Document = answer.json()
            return found

        return await eventually(read, lambda found: found["status"] != "pending")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    """Return the HTTP API of a company, for all tests of this module."""
    settings = load_settings({"data_dir": str(tmp_path_factory.mktemp("door") / "data")}, {})
    async with (
        Session(settings) as session,
        company_of(session) as company,
        running(session, ["projections", "dashboard"], where=ListenAddress(port=0)) as services,
    ):
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        yield await Door.of(company, dashboard.address)


async def positions(door: Door, source: str) -> list[str]:
    """Return the ids of the recorded facts of a source, in order."""
    return [one["id"] for one in await door.company.operator.replay() if one["source"] == source]


# ------------------------------------------------------------------ events


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_the_python_sdk_publishes_an_event(door: Door, mode: str) -> None:
    fact = purchase(f"sdk-{mode}", "till")
    sent = CloudEvent({name: value for name, value in fact.items() if name != "data"}, fact["data"])
    headers, body = to_structured(sent) if mode == "structured" else to_binary(sent)
    async with door("till") as till:
        answer = await till.post("/api/v1/events", headers=headers, content=body)
        assert answer.status_code == 202, answer.text
        (receipt,) = answer.json()["receipts"]
        assert (receipt["id"], receipt["status"]) == (fact["id"], "pending")
        assert (await door.receipt(till, fact["id"]))["status"] == "recorded"


async def test_a_batch_has_a_receipt_for_each_event(door: Door) -> None:
    facts = [purchase(f"batch-{number}", "till") for number in range(300)]  # more than one message of the inbox holds
    async with door("till") as till:
        answer = await till.post("/api/v1/events", headers=BATCH, content=json.dumps(facts))
        assert answer.status_code == 202, answer.text
        assert [one["id"] for one in answer.json()["receipts"]] == [fact["id"] for fact in facts]
        assert {(await door.receipt(till, f"p-batch-{number}"))["status"] for number in (0, 150, 299)} == {"recorded"}
    recorded = [one for one in await positions(door, "till") if one.startswith("p-batch")]
    assert recorded == [fact["id"] for fact in facts]


async def test_the_same_event_over_nats_and_http_is_one(door: Door) -> None:
    fact = purchase("twice", "till")
    position = await door.company["till"].record(fact)
    async with door("till") as till:
        data = json.dumps(fact["data"])
        binary = {f"ce-{name}": value for name, value in fact.items() if name != "data"}
        for headers, body in (
            (STRUCTURED, json.dumps(fact)),
            (binary | {"Content-Type": "application/json"}, data),
            (BATCH, json.dumps([fact])),
        ):
            assert (await till.post("/api/v1/events", headers=headers, content=body)).status_code == 202
        assert (await door.receipt(till, fact["id"])) == {"status": "recorded", "position": position, "id": fact["id"]}
    assert (await positions(door, "till")).count(fact["id"]) == 1


async def test_percent_encoded_headers_of_binary_mode_are_decoded(door: Door) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "p-%E2%82%AC%20%F0%9F%98%80",
        "ce-source": "till",
        "ce-type": "resolution.purchase.completed.v1",
        "ce-time": "2026-01-05T10:00:00Z",
        "Content-Type": "application/json",
    }
    body = json.dumps({"order_id": "O-€", "total": gbp("5.00")})
    async with door("till") as till:
        answer = await till.post("/api/v1/events", headers=headers, content=body)
        assert answer.json()["receipts"][0]["id"] == "p-€ 😀"
        assert (await door.receipt(till, "p-%E2%82%AC%20%F0%9F%98%80"))["status"] == "recorded"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (STRUCTURED, b"{", 400),
        (STRUCTURED, b"[]", 400),
        (STRUCTURED, b'{"id": "a"}, {"id": "b"}', 400),
        (STRUCTURED, b"\xff", 400),
        (STRUCTURED, b"", 400),
        (BATCH, b"{}", 400),
        (BATCH, b"[1, 2", 400),
        (BATCH, b"[1, [], null]", 422),
        (BATCH, b"[" + b",".join([json.dumps(purchase("x", "till")).encode()] * 1001) + b"]", 413),
        ({"Content-Type": "application/cloudevents+avro"}, b"x", 400),
        ({"Content-Type": "application/cloudevents+json; charset=utf-16"}, b"{}", 400),
        ({"ce-specversion": "1.0", "ce-id": "\x80"}, b"{}", 400),
        ({"ce-specversion": "1.0", "ce-id": "a"}, b"{}", 422),
    ],
)
async def test_a_body_that_is_no_event_is_refused(
    door: Door, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with door("till") as till:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await till.post("/api/v1/events", headers=raw, content=body)
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
        assert answer.json()["detail"]


async def test_a_faulty_event_is_named_and_none_of_its_batch_is_taken(door: Door) -> None:
    good, bad = purchase("good", "till"), purchase("bad", "till")
    bad["data"]["total"] = {"amount": 5, "currency": "GBP"}
    async with door("till") as till:
        answer = await till.post("/api/v1/events", headers=BATCH, content=json.dumps([good, bad]))
        assert answer.status_code == 422
        (fault,) = answer.json()["errors"]
        assert (fault["number"], fault["id"], fault["field"]) == (1, "p-bad", "data.total.amount")
        assert (await door.receipt(till, "p-good"))["status"] == "unknown"
        alone = await till.post("/api/v1/events", headers=STRUCTURED, content=json.dumps(bad))
        assert (alone.status_code, alone.json()["field"]) == (422, "data.total.amount")


async def test_events_are_checked_and_kept_while_no_intake_runs(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with (
        Session(settings) as session,
        running(session, ["dashboard"], where=ListenAddress(port=0)) as services,
    ):
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        token = await Tokens(session.client).make("till", "source", None, None, "till")
        async with client_with_token(dashboard.address, token) as till:
            faulty = await till.post("/api/v1/events", headers=STRUCTURED, json=purchase("x", "till") | {"type": "no"})
            assert (faulty.status_code, faulty.json()["field"]) == (422, "type"), faulty.text
            taken = await till.post("/api/v1/events", headers=STRUCTURED, json=purchase("y", "till"))
            assert taken.status_code == 202, taken.text


async def test_an_event_that_is_too_large_is_refused_with_413(door: Door) -> None:
    fact = purchase("large", "till")
    fact["data"]["note"] = "x" * 50_000
    async with door("till") as till:
        for headers, body in ((STRUCTURED, json.dumps(fact)), (BATCH, json.dumps([purchase("l", "till"), fact]))):
            answer = await till.post("/api/v1/events", headers=headers, content=body)
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_source_publishes_in_its_own_name_within_its_profile(door: Door) -> None:
    async with door("till") as till:
        other = await till.post("/api/v1/events", headers=STRUCTURED, content=json.dumps(purchase("o", "desk")))
        assert (other.status_code, other.json()["code"]) == (422, "source_mismatch")
        hired = event("j", "employee.joined", "till", employee_id="X-1", role="manager", team_ids=[])
        beyond = await till.post("/api/v1/events", headers=STRUCTURED, content=json.dumps(hired))
        assert (beyond.status_code, beyond.json()["code"]) == (403, "source_not_allowed")


# ------------------------------------------------------------------ decisions


async def test_a_retry_gets_the_first_answer_whichever_way_it_comes(door: Door) -> None:
    over_nats = await door.company["desk"].ask("action", request_id="both-1", **ACTION)
    async with door("desk") as desk:
        answer = await desk.post("/api/v1/decisions/action", json=ACTION, headers={"Idempotency-Key": "both-1"})
        assert (answer.status_code, answer.json()) == (200, over_nats)
        named = await desk.post("/api/v1/decisions/action", json=ACTION | {"request_id": "both-1"})
        assert named.json() == over_nats
        first = (
            await desk.post("/api/v1/decisions/action", json=ACTION, headers={"Idempotency-Key": '"k \\"2"'})
        ).json()
        assert first["outcome"] == "taken"
        assert await door.company["desk"].ask("action", request_id='k "2', **ACTION) == first


async def test_a_key_that_is_used_for_another_request_is_refused(door: Door) -> None:
    async with door("desk") as desk:
        key = {"Idempotency-Key": "reused"}
        assert (await desk.post("/api/v1/decisions/action", json=ACTION, headers=key)).status_code == 200
        other = await desk.post("/api/v1/decisions/action", json=ACTION | {"amount": gbp("6.00")}, headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "request_id_reused")
        two = await desk.post("/api/v1/decisions/action", json=ACTION | {"request_id": "another"}, headers=key)
        assert (two.status_code, two.json()["field"]) == (422, "Idempotency-Key")
        none = await desk.post("/api/v1/decisions/action", json=ACTION)
        assert (none.status_code, none.json()["field"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    ("changes", "status", "outcome"),
    [
        ({}, 200, "taken"),
        ({"amount": gbp("900.00")}, 200, "escalate"),
        ({"customer_id": "A-1"}, 200, "refused"),
        ({"hold": True}, 200, "held"),
        ({"holdd": True}, 422, "unknown_field"),
        ({"agent_id": "nobody"}, 422, "unknown_agent"),
        ({"amount": gbp("5.001")}, 422, "invalid"),
    ],
)
async def test_outcomes_are_answers_and_errors_are_problems(
    door: Door, changes: Document, status: int, outcome: str
) -> None:
    async with door("desk") as desk:
        key = {"Idempotency-Key": f"outcome-{outcome}"}
        answer = await desk.post("/api/v1/decisions/action", json=ACTION | changes, headers=key)
        found = answer.json()
        assert (answer.status_code, found.get("outcome", found.get("code"))) == (status, outcome), answer.text


async def test_a_request_and_its_report_count_once_in_either_order(door: Door) -> None:
    """Over HTTP the request comes first and the report second; over NATS it is the other way round."""
    desk = door.company["desk"]
    ask: Document = {**ACTION, "agent_id": "A-2"}
    start = Decimal((await desk.budget("A-2"))["spent"])
    async with door("desk") as client:
        first = await client.post("/api/v1/decisions/action", json=ask, headers={"Idempotency-Key": "one-1"})
        assert first.json()["outcome"] == "taken", first.text
        told = event("one-1", "action.reported", "desk", **ask)
        assert (await client.post("/api/v1/events", headers=STRUCTURED, content=json.dumps(told))).status_code == 202
        assert (await door.receipt(client, "one-1"))["status"] == "recorded"
        await desk.record(event("one-2", "action.reported", "desk", **ask))
        charges = await eventually(lambda: desk.recorded("action.charged"), lambda found: len(found) == 2)
        assert [one["amount"] for one in charges] == [gbp("0.00"), gbp("5.00")]
        assert charges[0]["action_id"] == first.json()["action_id"]
        second = await client.post("/api/v1/decisions/action", json=ask, headers={"Idempotency-Key": "one-2"})
        assert (second.status_code, second.json()["code"]) == (422, "already_reported")
    again = await desk.ask("action", request_id="one-2", **ask)
    assert again["error"]["field"] == "request_id"
    assert Decimal((await desk.budget("A-2"))["spent"]) == start + 10


async def test_a_preview_takes_nothing_and_a_hold_is_settled(door: Door) -> None:
    async with door("desk") as desk:
        preview = await desk.post(
            "/api/v1/decisions/preview", json={"agent_id": "A-1", "kind": "refund", "reason": "x"}
        )
        assert preview.json()["available"]["currency"] == "GBP"
        key = {"Idempotency-Key": "to-settle"}
        held = (await desk.post("/api/v1/decisions/action", json=ACTION | {"hold": True}, headers=key)).json()
        body = {"operation": "settle", "action_id": held["action_id"]}
        settled = await desk.post("/api/v1/decisions/hold", json=body, headers={"Idempotency-Key": "settles"})
        assert (settled.status_code, settled.json()["outcome"]) == (200, "done"), settled.text
        assert (await desk.post("/api/v1/decisions/policy", json={}, headers=key)).status_code == 404


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"1", b"[" * 5000])
async def test_a_body_that_is_no_request_is_refused(door: Door, body: bytes) -> None:
    async with door("desk") as desk:
        answer = await desk.post("/api/v1/decisions/action", content=body, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")


async def test_a_source_asks_within_its_profile(door: Door) -> None:
    async with door("till") as till:
        answer = await till.post("/api/v1/decisions/action", json=ACTION, headers={"Idempotency-Key": "till-1"})
        assert (answer.status_code, answer.json()["code"]) == (403, "source_not_allowed")
    async with door("desk") as desk:
        approve = {"operation": "approve", "escalation_id": "esc-1", "decided_by": "M-1"}
        answer = await desk.post("/api/v1/decisions/escalation", json=approve, headers={"Idempotency-Key": "a-1"})
        assert (answer.status_code, answer.json()["code"]) == (403, "source_not_allowed")


async def test_the_brief_is_that_of_nats(door: Door) -> None:
    opened = event("i-brief", "interaction.opened", "desk", interaction_id="I-brief", customer_id="C-brief")
    await door.company["desk"].record(opened)
    async with door("desk") as desk:
        answer = await desk.get("/api/v1/brief", params={"customer_id": "C-brief", "agent_id": "A-1"})
        assert answer.status_code == 200, answer.text
        assert [one["interaction_id"] for one in answer.json()["interactions"]] == ["I-brief"]
        assert (await desk.get("/api/v1/brief")).status_code == 422


# ------------------------------------------------------------------ tokens and limits

ROUTES: list[tuple[str, str]] = [
    ("POST", "/api/v1/events"),
    ("GET", "/api/v1/receipts/x"),
    ("POST", "/api/v1/decisions/action"),
    ("GET", "/api/v1/brief"),
]


@pytest.mark.parametrize("person", ["operator", "agent"])
async def test_a_persons_token_is_no_token_of_a_source(door: Door, person: str) -> None:
    async with door(person) as client:
        assert {(await client.request(method, path)).status_code for method, path in ROUTES} == {403}


async def test_a_sources_token_opens_nothing_else(door: Door) -> None:
    async with door("operator") as operator:
        paths = (await operator.get("/openapi.json")).json()["paths"]
    ours = {"/api/v1/events", "/api/v1/receipts/{id}", "/api/v1/brief", "/api/v1/notifications"}
    ours |= {path for path in paths if path.startswith(("/api/v1/decisions/", "/api/v1/webhooks"))}
    assert ours <= paths.keys()
    free = {"/healthz", "/readyz", "/api/v1/session", "/schemas", "/schemas/{kind}/{name}"}
    async with door("desk") as desk:
        for path, methods in paths.items():
            if path not in ours | free:
                for method in methods:
                    answer = await desk.request(method.upper(), path.replace("{", "").replace("}", ""))
                    assert answer.status_code == 403, (method, path, answer.text)
        login = await desk.post("/api/v1/session", json={"token": door.tokens["desk"]})
        assert login.status_code == 403


async def test_limits_are_told_and_held(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.auth.source_limits.REQUESTS_A_SECOND", 2.0)
    monkeypatch.setattr("dashboard.auth.source_limits.EVENTS_A_SECOND", 2.0)
    async with door("psp") as psp:
        answers = [await psp.get("/api/v1/receipts/x") for _ in range(6)]
        assert answers[0].headers["RateLimit-Policy"] == '"requests";q=4;w=2'
        assert answers[0].headers["RateLimit"] == '"requests";r=3;t=1'
        assert (answers[-1].status_code, answers[-1].headers["Retry-After"]) == (429, "1")
        await asyncio.sleep(1)
        assert (await psp.get("/api/v1/receipts/x")).status_code == 200
        batch = json.dumps([purchase(number, "psp") for number in range(3)])
        sent = [await psp.post("/api/v1/events", headers=BATCH, content=batch) for _ in range(2)]
        assert [one.status_code for one in sent] == [403, 429]  # the first one is beyond its profile, and counts


async def test_a_stopped_source_is_refused_over_http_at_once(door: Door) -> None:
    async with door("other-desk") as desk:
        key = {"Idempotency-Key": "before"}
        assert (await desk.post("/api/v1/decisions/action", json=ACTION, headers=key)).status_code == 200
        await door.company.stop("other-desk")
        await door.company.operator.wait_for_decider()
        again = await desk.post("/api/v1/decisions/action", json=ACTION, headers=key)
        assert (again.status_code, again.json()["code"]) == (403, "source_not_allowed")

        async def published() -> httpx.Response:
            fact = purchase("after", "other-desk")
            return await desk.post("/api/v1/events", headers=STRUCTURED, content=json.dumps(fact))

        answer = await eventually(published, lambda found: found.status_code != 202)
        assert (answer.status_code, answer.json()["code"]) == (403, "source_not_allowed")


async def test_a_token_is_made_for_a_registered_source(command: CommandLine) -> None:
    assert command("admin", "sources", "add", "crm", "--profile", "desk").returncode == 0
    made = command("admin", "tokens", "make", "crm-http", "--source", "crm", "--json")
    assert made.returncode == 0, made.stderr
    document: dict[str, Any] = json.loads(made.stdout)
    assert (document["role"], document["source"], document["token"][:10]) == ("source", "crm", "rl-source-")
    for words in (("--source", "nobody"), ("--source", "crm", "--role", "auditor"), ()):
        refused = command("admin", "tokens", "make", "other", *words)
        assert refused.returncode == 2, refused.stderr
    assert "crm" in command("admin", "tokens", "list").stdout


async def test_the_node_sdk_publishes_in_every_mode_and_gets_its_decision(door: Door) -> None:
    """With the profile of a desk, since a till asks for no decision."""
    said = await run_node("http.mjs", {"url": door.address, "token": door.tokens["desk"], "source": "desk"})
    assert [one["status"] for one in said["published"]] == [202] * 3, said["published"]
    assert {one["status"] for one in said["receipts"].values()} == {"recorded"}
    assert len(said["receipts"]) == 4
    assert (said["taken"]["status"], said["taken"]["body"]["outcome"]) == (200, "taken")
    assert said["again"] == said["taken"]
