"""The client of other systems: the same test for both ways to a real ledger, NATS and HTTP."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio

from app.runtime.roles import running
from app.runtime.session import Session
from app.runtime.source_users import source_file
from config.settings import load_settings
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from resolution_ledger import (
    ActionRequest,
    Client,
    EscalationAsk,
    EscalationDecision,
    EventsRejectedError,
    HoldRequest,
    Money,
    NewEvent,
    NoAnswerError,
    NotAllowedError,
    Preview,
    RejectedError,
    ReversalRequest,
    facts,
)
from resolution_ledger.connections import HttpConnection
from tests.support.registered_sources import Company, company_of

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]
WAYS = ("nats", "http")
Connect = Callable[..., Client]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Company, str]]:
    """Return a company with registered sources, and the address of its HTTP API."""
    settings = load_settings({"data_dir": str(tmp_path_factory.mktemp("client") / "data")}, {})
    async with (
        Session(settings) as session,
        company_of(session) as found,
        running(session, ["projections", "dashboard"], where=ListenAddress(port=0)) as services,
    ):
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        yield found, dashboard.address


@pytest_asyncio.fixture(params=WAYS, loop_scope="module")
async def way(request: pytest.FixtureRequest) -> str:
    """Return each way to the ledger."""
    name: str = request.param
    return name


@pytest_asyncio.fixture(loop_scope="module")
async def connect(company: tuple[Company, str]) -> Connect:
    """Return a function that makes the client of a source, on a way."""
    folder, book = company[0].session.data_dir, Tokens(company[0].session.client)
    sources = ("desk", "till", "approver")
    tokens = {one: await book.make(f"{one}-{uuid.uuid4()}", "source", None, None, one) for one in sources}

    def make(way: str, source: str, patience_seconds: float = 10) -> Client:
        if way == "nats":
            url = json.loads(source_file(folder, source).read_text())["nats_url"]
            return Client(url, source=source, patience_seconds=patience_seconds)
        return Client(company[1], source=source, token=tokens[source], patience_seconds=patience_seconds)

    return make


def refund(request_id: str, amount: str = "5.00", **fields: str) -> ActionRequest:
    money = Money.parse(amount, "GBP")
    return ActionRequest(request_id=request_id, agent_id="A-1", kind="refund", amount=money, reason="late", **fields)  # type: ignore[arg-type]


def bought(name: str) -> NewEvent:
    fact = facts.PurchaseCompleted(order_id=name, customer_id="C-9", total=Money.parse("12.00", "GBP"))
    return NewEvent(id=name, fact=fact, time=datetime(2026, 1, 5, 10, tzinfo=UTC))


async def test_a_fact_is_published_and_its_receipt_read(connect: Connect, way: str) -> None:
    async with connect(way, "till") as till:
        receipt = await till.publish(bought(f"one €/{way}"))
        assert (receipt.id, receipt.status) == (f"one €/{way}", "pending")
        assert (await till.receipt(f"one €/{way}", wait_seconds=10)).status == "recorded"
        assert (await till.receipt("never sent")).status == "unknown"


async def test_a_batch_is_recorded_in_order_and_once(connect: Connect, way: str) -> None:
    events = [bought(f"batch-{number}-{way}") for number in range(1200)]
    async with connect(way, "till") as till:
        first = await till.publish_batch(events)
        assert [one.id for one in first] == [one.id for one in events]
        await till.publish_batch(events[:2])
        last = await till.receipt(events[-1].id, wait_seconds=20)
        before = await till.receipt(events[0].id)
        assert last.position is not None
        assert before.position is not None
        assert last.position - before.position == len(events) - 1


async def test_one_key_gives_one_answer_on_both_ways(connect: Connect) -> None:
    async with connect("nats", "desk") as over_nats, connect("http", "desk") as over_http:
        answers = [await one.decide(refund('k "1" \\')) for one in (over_nats, over_http, over_nats)]
        assert answers[0].outcome == "taken"
        assert answers[0].budget is not None
        assert answers[0] == answers[1] == answers[2]


async def test_holds_reversals_and_previews(connect: Connect, way: str) -> None:
    async with connect(way, "desk") as desk:
        preview = await desk.preview(Preview(agent_id="A-1", kind="refund"))
        assert preview.available is not None
        held = await desk.decide(refund(f"held-{way}", hold=True))  # type: ignore[arg-type]
        assert (held.outcome, held.expires_at is not None) == ("held", True)
        assert held.action_id
        settle = HoldRequest(request_id=f"settle-{way}", action_id=held.action_id, operation="settle")
        settled = await desk.decide(settle)
        assert (settled.outcome, settled.amount) == ("done", Money.parse("5.00", "GBP"))
        reversal = ReversalRequest(
            request_id=f"back-{way}", action_id=held.action_id, reversed_by="M-1", reason="returned", recovered=True
        )
        assert (await desk.decide(reversal)).outcome == "done"


async def test_an_escalation_is_filed_decided_and_told(connect: Connect, way: str) -> None:
    async with connect(way, "desk") as desk, connect(way, "approver") as approver:
        ask = EscalationAsk(
            request_id=f"asked-{way}",
            operation="request",
            agent_id="A-1",
            kind="refund",
            amount=Money.parse("70.00", "GBP"),
            reason="late",
        )
        filed = await desk.escalate(ask)
        assert (filed.outcome, filed.status) == ("done", "requested")
        assert filed.escalation_id
        assert filed.to
        step = await desk.escalation(filed.escalation_id)
        assert step is not None
        assert step.status == "requested"
        assert await approver.escalation("esc-of-nobody") is None
        decision = EscalationDecision(
            request_id=f"yes-{way}", operation="approve", escalation_id=filed.escalation_id, decided_by=filed.to[0]
        )
        assert (await approver.escalate(decision)).status == "approved"
        decided = await desk.escalation(filed.escalation_id, wait_seconds=10)
        assert decided is not None
        assert decided.status == "approved"

        async def told() -> list[str]:
            found: list[str] = []
            async for notice in desk.notifications(poll_seconds=0.05):
                if notice.escalation_id == filed.escalation_id:
                    found.append(notice.status)
                if found[-1:] == ["approved"]:
                    break
            return found

        assert await asyncio.wait_for(told(), 20) == ["requested", "approved"]


async def test_a_brief_is_typed(connect: Connect, way: str) -> None:
    async with connect(way, "desk") as desk:
        await desk.decide(refund(f"brief-{way}", customer_id=f"C-{way}"))
        brief = await desk.brief("A-1", customer_id=f"C-{way}")
        assert brief.actions[-1]["customer_id"] == f"C-{way}"
        assert brief.actions[-1]["amount"] is not None
        assert brief.actions[-1]["amount"].amount == "5.00"
        assert brief.available["refund"].currency == "GBP"


async def test_errors_name_the_code_the_field_and_the_remedy(connect: Connect, way: str) -> None:
    async with connect(way, "desk") as desk, connect(way, "till") as till:
        await desk.decide(refund(f"used-{way}"))
        with pytest.raises(RejectedError, match="request_id_reused") as reused:
            await desk.decide(refund(f"used-{way}", "6.00"))
        assert (reused.value.field, "new request_id" in reused.value.remedy) == ("request_id", True)
        with pytest.raises(NotAllowedError) as refused:
            await till.decide(refund(f"till-{way}"))
        assert refused.value.code == "source_not_allowed"
        good, bad = bought(f"good-{way}"), NewEvent(id="jo@example.com", fact=bought("x").fact)
        with pytest.raises(EventsRejectedError) as rejected:
            await till.publish_batch([good, bad])
        assert [(one.number, one.field) for one in rejected.value.faults] == [(1, "id")]
        assert (await till.receipt(good.id)).status == "unknown"
        hired = NewEvent(id=f"j-{way}", fact=facts.EmployeeJoined(employee_id="X", role="agent", team_ids=()))
        with pytest.raises(EventsRejectedError, match="source_not_allowed"):
            await till.publish(hired)


async def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is lost on its way, after the ledger has decided."""
    sent: list[str] = []
    real = httpx.AsyncClient.request

    async def lossy(self: httpx.AsyncClient, *arguments: object, **options: object) -> httpx.Response:
        answer = await real(self, *arguments, **options)  # type: ignore[arg-type]
        sent.append(answer.request.headers["Idempotency-Key"])
        if len(sent) == 1:
            raise httpx.ReadError("connection reset")
        return answer

    async with connect("http", "desk") as desk:
        monkeypatch.setattr(httpx.AsyncClient, "request", lossy)
        answer = await desk.decide(refund("lost"))
        monkeypatch.undo()
        assert sent == ['"lost"', '"lost"']
        assert answer == await desk.decide(refund("lost"))


async def test_a_ledger_that_is_away_is_an_error_within_the_patience(way: str) -> None:
    url = {"nats": "nats://127.0.0.1:9", "http": "http://127.0.0.1:9"}[way]
    ledger = Client(url, source="crm", token="t", timeout_seconds=0.2, patience_seconds=0.3)
    with pytest.raises(NoAnswerError, match="repeat the call"):
        await ledger.decide(refund("away"))


async def test_a_url_of_another_scheme_or_without_a_token_is_refused() -> None:
    for url in ("ftp://ledger", "http://ledger"):
        with pytest.raises(ValueError, match=r"scheme|token"):
            Client(url, source="crm")


async def test_a_proxys_answer_is_an_error_too() -> None:
    fault = HttpConnection("http://ledger", "t", 1)._fault(httpx.Response(502, text="<html>bad gateway</html>"))
    assert isinstance(fault, NoAnswerError)
