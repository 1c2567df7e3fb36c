"""The matrix of tricks by sources, each tried with the users of a running server (SECURITY.md lists these tests)."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats.errors
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from ledger.nats.client import LedgerClient
from ledger.store.streams import js_api
from tests.support.builders import event, gbp, purchase
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.organisations import FULL_POLICY
from tests.support.registered_sources import GOVERNED_POLICY, Company, RegisteredSource, company_of
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SILENT_SECONDS = 0.5
"""The server drops a message without permission silently; a request waits so long for an answer."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    """Return a ledger with a registered source of each profile, for all tests of this module."""
    folder = tmp_path_factory.mktemp("company")
    async with Session(load_settings({"data_dir": str(folder / "data")}, {})) as session, company_of(session) as made:
        yield made


async def shared_client(company: Company) -> Upstream:
    """Return a client with the user of connection.json, which all unregistered sources share."""
    return Upstream(company.session, company.operator.client, "stranger")


async def is_silent(client: LedgerClient, subject: str, body: Document) -> bool:
    """Return whether the server lets a request reach nobody."""
    try:
        await client.request(subject, json.dumps(body).encode(), timeout=SILENT_SECONDS)
    except (TimeoutError, nats.errors.NoRespondersError, nats.errors.TimeoutError):
        return True
    return False


GRANT = {"operation": "grant", "holder": "agent:A-1", "amount": gbp("99999.00"), "granted_by": "M-1", "reason": "r"}
TRANSFER = GRANT | {"operation": "transfer", "to_holder": "agent:A-2", "amount": gbp("1.00")}
FORBIDDEN: dict[str, tuple[str, Document]] = {
    "policy": ("policy", {"policy": FULL_POLICY, "published_by": "X-1"}),
    "grant": ("budget", GRANT),
    "transfer": ("budget", TRANSFER),
    "approve": ("escalation", {"operation": "approve", "escalation_id": "esc-1", "decided_by": "M-1"}),
    "deny": ("escalation", {"operation": "deny", "escalation_id": "esc-1", "decided_by": "M-1"}),
    "forward": ("escalation", {"operation": "forward", "escalation_id": "esc-1", "decided_by": "M-1"}),
    "review": ("flag", {"flag_id": "flag-1", "verdict": "dismissed", "reviewed_by": "X-1"}),
}
"""Operations beyond the profile `desk` -> the last token of the subject, and a request."""


@pytest.mark.parametrize("trick", FORBIDDEN)
async def test_an_unregistered_source_neither_governs_nor_approves(company: Company, trick: str) -> None:
    operation, fields = FORBIDDEN[trick]
    end = await company.session.log.last_position()
    stranger = await shared_client(company)
    reply = await stranger.client.request(
        f"resolution.decide.stranger.{operation}", json.dumps({"request_id": "x", **fields}).encode(), timeout=10
    )
    assert json.loads(reply.data)["error"]["code"] == "source_not_allowed"
    assert await company.session.log.last_position() == end


@pytest.mark.parametrize("name", ["till", "psp", "hr"])
@pytest.mark.parametrize("trick", FORBIDDEN)
async def test_the_server_lets_an_unfit_source_neither_govern_nor_approve(
    company: Company, name: str, trick: str
) -> None:
    operation, fields = FORBIDDEN[trick]
    body = {"request_id": "x", **fields}
    assert await is_silent(company[name].client, f"resolution.decide.{name}.{operation}", body)


@pytest.mark.parametrize("trick", ["approve", "deny", "forward"])
async def test_a_desk_does_not_decide_escalations(company: Company, trick: str) -> None:
    operation, fields = FORBIDDEN[trick]
    answer = await company["desk"].ask(operation, request_id=f"desk-{trick}", **fields)
    assert answer["error"]["code"] == "source_not_allowed"


async def test_the_decider_refuses_a_profile_although_the_server_permits_the_subject(company: Company) -> None:
    """An operator's own server may grant a source more subjects than its profile."""
    for name, (operation, fields) in FORBIDDEN.items():
        body = json.dumps({"request_id": "x", **fields}).encode()
        reply = await company.session.client.request(f"resolution.decide.till.{operation}", body, timeout=10)
        assert json.loads(reply.data)["error"]["code"] == "source_not_allowed", name


@pytest.mark.parametrize("name", ["desk", "board", "hr"])
async def test_no_source_registers_itself_or_another(company: Company, name: str) -> None:
    client = company[name].client
    rights = {"source": "x", "profile": "governance", "by": name}
    for subject in ("ledger.sources", f"resolution.decide.{name}.source", f"resolution.operate.{name}.policy"):
        assert await is_silent(client, subject, rights), subject


async def test_an_event_of_the_registry_is_no_fact(company: Company) -> None:
    till = company["till"]
    await till.publish(event("reg", "source.registered", "till", profile="governance", by="till"))
    answer = await till.receipt("reg")
    assert (answer["status"], answer["error"]["code"]) == ("rejected", "reserved_type")


@pytest.mark.parametrize(
    "subject", ["resolution.inbox.desk", "resolution.decide.desk.action", "resolution.read.desk.check"]
)
@pytest.mark.parametrize("name", ["shared", "till"])
async def test_nobody_speaks_in_the_name_of_a_registered_source(company: Company, name: str, subject: str) -> None:
    client = company.operator.client if name == "shared" else company[name].client
    assert await is_silent(client, subject, purchase("stolen", "desk"))


@pytest.mark.parametrize("source", ["cli", "dashboard", "ledger", "resolution-ledger", "signed-in"])
async def test_nobody_speaks_in_the_name_of_the_ledger(company: Company, source: str) -> None:
    for client in (company.operator.client, company["board"].client):
        body = {"request_id": "x", **GRANT}
        assert await is_silent(client, f"resolution.decide.{source}.budget", body)
        assert await is_silent(client, f"resolution.operate.{source}.budget", body)


@pytest.mark.parametrize("name", ["desk", "board", "hr"])
async def test_no_source_reaches_tokens_leases_or_the_seal(company: Company, name: str) -> None:
    token = {"name": "mine", "role": "operator", "made": "2026-01-01T00:00:00Z"}
    ledger = company.session.client
    before = (await js_api(ledger, f"STREAM.INFO.{topology.TOKENS}"))["state"]["last_seq"]
    for subject in (
        f"{topology.TOKENS_SUBJECT}.{'a' * 64}",
        "$KV.ledger-leases.decisions",
        f"resolution.standby.{name}",
        topology.SEAL_SUBJECT,
        *(
            f"$JS.API.{call}.{topology.TOKENS}"
            for call in ("STREAM.INFO", "STREAM.PURGE", "DIRECT.GET", "STREAM.MSG.GET")
        ),
    ):
        for client in (company.operator.client, company[name].client):
            assert await is_silent(client, subject, token), subject
    assert (await js_api(ledger, f"STREAM.INFO.{topology.TOKENS}"))["state"]["last_seq"] == before


FOREIGN = {
    "desk": event("f-1", "employee.joined", "desk", employee_id="E-9", role="director", team_ids=[]),
    "till": event("f-2", "employee.changed", "till", employee_id="A-1", role="director", team_ids=[]),
    "psp": event("f-3", "employee.left", "psp", employee_id="M-1"),
    "hr": purchase("f-4", "hr"),
    "other-desk": event(
        "f-5",
        "delegation.declared",
        "other-desk",
        from_employee_id="X-1",
        to_employee_id="A-1",
        from_time="2020-01-01T00:00:00Z",
        until_time="2030-01-01T00:00:00Z",
    ),
}
"""Source -> a fact beyond its profile: it hires, promotes, retires, or forges a delegation."""


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_fact_beyond_the_profile_is_rejected(company: Company, name: str) -> None:
    fact = FOREIGN[name]
    await company[name].publish(fact)
    answer = await company[name].receipt(fact["id"])
    assert (answer["status"], answer["error"]["code"]) == ("rejected", "source_not_allowed")


async def test_an_unregistered_source_announces_no_employee_beside_a_registered_one(company: Company) -> None:
    stranger = await shared_client(company)
    await stranger.publish(event("s-1", "employee.joined", "stranger", employee_id="E-8", role="agent", team_ids=[]))
    answer = await stranger.receipt("s-1")
    assert (answer["status"], answer["error"]["code"]) == ("rejected", "source_not_allowed")


async def test_an_unregistered_source_sends_other_facts_and_requests_actions(company: Company) -> None:
    stranger = await shared_client(company)
    await stranger.record(purchase("ok", "stranger"))
    assert (await stranger.action("stranger-1", agent_id="A-2"))["outcome"] == "taken"


async def test_a_correction_turns_no_fact_into_one_beyond_the_profile(company: Company) -> None:
    """A source that sent a fact before its rights were narrowed does not rewrite it afterwards."""
    old = await company.register("old-hr", "people")
    await old.record(event("o-1", "employee.joined", "old-hr", employee_id="E-7", role="agent", team_ids=[]))
    await company.change("old-hr", profile="facts")
    right = {"employee_id": "E-7", "role": "director", "team_ids": []}
    await old.publish(event("o-2", "fact.corrected", "old-hr", source_of="old-hr", id_of="o-1", data=right, reason="r"))
    answer = await old.receipt("o-2")
    assert (answer["status"], answer["error"]["code"]) == ("rejected", "source_not_allowed")


async def held(source: RegisteredSource, request_id: str) -> str:
    answer = await source.action(request_id, agent_id="A-2", amount="3.00", hold=True)
    assert answer["outcome"] == "held", answer
    return str(answer["action_id"])


@pytest.mark.parametrize("operation", ["settle", "void"])
async def test_a_desk_ends_no_hold_of_another_source(company: Company, operation: str) -> None:
    action_id = await held(company["desk"], f"hold-{operation}")
    answer = await company["other-desk"].ask(
        "hold", request_id=f"o-{operation}", action_id=action_id, operation=operation
    )
    assert answer["error"]["code"] == "source_not_allowed"
    done = await company["desk"].ask("hold", request_id=f"own-{operation}", action_id=action_id, operation=operation)
    assert done["outcome"] == "done"


async def test_a_desk_reverses_no_action_of_another_source(company: Company) -> None:
    taken = await company["desk"].action("reversible", agent_id="A-2", amount="2.00")
    fields = {"action_id": taken["action_id"], "reversed_by": "M-1", "reason": "r", "recovered": True}
    answer = await company["other-desk"].ask("reversal", request_id="rev-1", **fields)
    assert answer["error"]["code"] == "source_not_allowed"
    assert (await company["desk"].ask("reversal", request_id="rev-1", **fields))["outcome"] == "done"


async def test_a_payment_system_settles_a_hold_of_any_source_and_voids_none(company: Company) -> None:
    action_id = await held(company["desk"], "hold-psp")
    answer = await company["psp"].ask("hold", request_id="psp-1", action_id=action_id, operation="void")
    assert answer["error"]["code"] == "source_not_allowed"
    assert (await company["psp"].ask("hold", request_id="psp-2", action_id=action_id, operation="settle"))[
        "outcome"
    ] == "done"


async def test_a_payment_system_settles_no_more_than_was_held(company: Company) -> None:
    action_id = await held(company["desk"], "hold-more")
    answer = await company["psp"].ask(
        "hold", request_id="psp-3", action_id=action_id, operation="settle", amount=gbp("3.01")
    )
    assert answer["outcome"] == "error"


async def test_the_requesting_source_reverses_an_action_that_another_source_approved(company: Company) -> None:
    request: dict[str, Any] = {"kind": "refund", "amount": gbp("70.00"), "reason": "late", "agent_id": "D-1"}
    filed = await company["desk"].ask("escalation", request_id="esc-own", operation="request", **request)
    escalation = {"escalation_id": filed["escalation_id"], "decided_by": "M-1"}
    approved = await company["approver"].ask("escalation", request_id="yes", operation="approve", **escalation)
    assert approved["status"] == "approved", approved
    fields = {"action_id": approved["action_id"], "reversed_by": "M-1", "reason": "r", "recovered": True}
    assert (await company["other-desk"].ask("reversal", request_id="rev-2", **fields))["outcome"] == "error"
    assert (await company["desk"].ask("reversal", request_id="rev-2", **fields))["outcome"] == "done"


async def test_a_source_with_the_profile_governance_grants_and_proposes(company: Company) -> None:
    granted = await company["board"].ask("budget", request_id="g", **(GRANT | {"amount": gbp("1.00")}))
    assert granted["outcome"] == "done", granted
    policy = GOVERNED_POLICY | {"effective_from": "2036-01-01T00:00:00Z"}
    fields: Document = {"operation": "propose", "policy": policy, "replaces": 1, "proposed_by": "X-1"}
    proposed = await company["board"].ask("policy", request_id="p2", **fields)
    assert (proposed.get("status"), proposed.get("missing")) == ("proposed", 2), proposed


UNGOVERNED: dict[str, tuple[str, Document]] = {
    "publishes without a proposal": ("policy", {"policy": GOVERNED_POLICY, "published_by": "X-1"}),
    "breaks the glass": (
        "policy",
        {"policy": GOVERNED_POLICY, "published_by": "X-1", "break_glass": True, "reason": "x"},
    ),
    "proposes in the name of a manager": (
        "policy",
        {"operation": "propose", "policy": GOVERNED_POLICY, "replaces": 1, "proposed_by": "M-1"},
    ),
    "approves in a name": ("policy", {"operation": "approve", "sha256": "x", "approved_by": "X-1"}),
    "grants beyond the amount a period": ("budget", GRANT),
    "grants in the name of nobody": ("budget", GRANT | {"granted_by": "nobody", "amount": gbp("1.00")}),
    "grants in the name of an agent": ("budget", GRANT | {"granted_by": "A-2", "amount": gbp("1.00")}),
    "grants to the grantor": ("budget", GRANT | {"granted_by": "A-1", "amount": gbp("1.00")}),
    "grants to a person of another team": ("budget", GRANT | {"holder": "agent:X-1", "amount": gbp("1.00")}),
    "transfers in the name of an agent": ("budget", TRANSFER | {"granted_by": "D-1"}),
    "transfers to the giver": ("budget", TRANSFER | {"to_holder": "agent:M-1"}),
}
"""Attempts of a source with the profile `governance` -> the last token of the subject, and a request."""


@pytest.mark.parametrize("trick", UNGOVERNED)
async def test_a_source_governs_only_as_the_policy_in_force_lets_its_people(company: Company, trick: str) -> None:
    operation, fields = UNGOVERNED[trick]
    end = await company.session.log.last_position()
    answer = await company["board"].ask(operation, request_id=f"ungoverned {trick}", **fields)
    assert answer.get("error", {}).get("code") in ("not_governor", "insufficient", "unknown_proposal", "invalid"), (
        answer
    )
    assert await company.session.log.last_position() == end


async def test_no_source_governs_where_the_policy_has_no_governance(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, company_of(session, policy=FULL_POLICY) as company:
        for operation, fields in (FORBIDDEN["policy"], FORBIDDEN["grant"], FORBIDDEN["transfer"]):
            answer = await company["board"].ask(operation, request_id="x", **fields)
            assert answer["error"]["code"] == "not_governor", answer


async def test_a_desk_requests_for_its_roles_alone(company: Company) -> None:
    narrow = await company.register("narrow", "desk", roles=("agent",))
    assert (await narrow.action("n-1", agent_id="A-2", amount="1.00"))["outcome"] == "taken"
    answer = await narrow.action("n-2", agent_id="M-1", amount="1.00")
    assert (answer["error"]["code"], answer["error"]["field"]) == ("source_not_allowed", "agent_id")


async def test_a_desk_gives_no_more_than_its_amount_a_day(company: Company) -> None:
    from domain.money import Money

    daily = await company.register("daily", "desk", per_day=Money(1000, "GBP"))
    assert (await daily.action("d-1", agent_id="M-2", amount="6.00"))["outcome"] == "taken"
    answer = await daily.action("d-2", agent_id="M-2", amount="6.00")
    assert (answer["error"]["code"], answer["error"]["field"]) == ("source_not_allowed", "amount.amount")
    assert (await daily.action("d-3", agent_id="M-2", amount="4.00"))["outcome"] == "taken"


async def test_a_desk_proves_nothing_to_itself(company: Company) -> None:
    """The desk records a payment of its own, and another source's payment shows what is owed."""
    desk, order = company["desk"], {"order_id": "O-own", "basis": "entitlement", "agent_id": "D-1"}
    await desk.record(event("self-paid", "purchase.completed", "desk", order_id="O-own", total=gbp("90000.00")))
    await company.operator.wait_for_decider()
    answer = await desk.action("own-1", amount="90000.00", **order)
    assert answer["outcome"] in ("escalate", "refused")
    assert answer["explanation"] == "0.00 of 90000.00 is shown as owed; the rest counts as goodwill"
    await company["till"].record(event("paid", "purchase.completed", "till", order_id="O-own", total=gbp("60.00")))
    await company.operator.wait_for_decider()
    owed = await desk.action("own-2", amount="60.00", **order)
    assert (owed["outcome"], owed["explanation"]) == ("taken", "60.00 of 60.00 is shown as owed")
    again = await desk.action("own-3", amount="90000.00", **order)
    assert again["explanation"] == "0.00 of 90000.00 is shown as owed; the rest counts as goodwill"


async def test_an_entitlement_in_another_currency_is_owed_nothing(company: Company) -> None:
    answer = await company["desk"].ask(
        "action",
        request_id="eur-1",
        agent_id="D-1",
        kind="refund",
        amount=gbp("5.00") | {"currency": "EUR"},
        reason="late",
        basis="entitlement",
        order_id="O-own",
    )
    assert answer["error"]["code"] == "currency"


async def test_a_source_cuts_no_link_of_another(company: Company) -> None:
    """The link stays, although a second personnel system repeats it, cuts it, and takes its own word back."""
    other = await company.register("other-hr", "people")
    pair = {"a": "A-2", "b": "C-kin", "relation": "household"}
    await company["hr"].record(event("kin", "customer.linked", "hr", **pair))
    await other.record(event("kin-too", "customer.linked", "other-hr", **pair))
    await other.record(event("no-kin", "customer.unlinked", "other-hr", **pair))
    undone: Document = {"source_of": "other-hr", "id_of": "kin-too", "data": None, "reason": "mistaken"}
    await other.record(event("kin-undone", "fact.corrected", "other-hr", **undone))
    await company.operator.wait_for_decider()
    answer = await company["desk"].action("kin-1", amount="1.00", agent_id="A-2", customer_id="C-kin")
    assert (answer["outcome"], answer["reasons"][0]["rule"]) == ("refused", "self_dealing")


async def test_a_payment_system_reports_no_more_than_was_held(company: Company) -> None:
    desk = company["desk"]
    held = await desk.action("above-1", amount="5.00", agent_id="D-2", hold=True)
    await company.operator.wait_for_decider()
    fact = event("above", "refund.settled", "psp", action_id=held["action_id"], total=gbp("90000.00"))
    await company["psp"].record(fact)
    settled = await eventually(lambda: company.operator.recorded("action.settled"), lambda found: bool(of(found, held)))
    (one,) = of(settled, held)
    assert (one["amount"], one["beyond"]) == (gbp("5.00"), gbp("89995.00"))


def of(postings: list[Document], action: Document) -> list[Document]:
    """Return the postings of an action."""
    return [one for one in postings if one["action_id"] == action["action_id"]]


async def test_a_stopped_source_is_refused_at_once(company: Company) -> None:
    thief = await company.register("thief", "desk")
    assert (await thief.action("t-1", agent_id="A-2", amount="1.00"))["outcome"] == "taken"
    await company.stop("thief")
    body = {"request_id": "t-1", "agent_id": "A-2", "kind": "refund", "amount": gbp("1.00"), "reason": "late"}
    assert await is_silent(company.operator.client, "resolution.decide.thief.action", body)
    await company.operator.wait_for_decider()
    reply = await company.session.client.request(
        "resolution.decide.thief.action", json.dumps(body).encode(), timeout=10
    )
    assert json.loads(reply.data)["error"]["code"] == "source_not_allowed"


async def test_a_fact_of_a_stopped_source_is_kept_and_can_be_retried(company: Company) -> None:
    """A message that was acknowledged before the stop is not lost."""
    await company.register("late", "facts")
    await company.stop("late")
    await company.operator.wait_for_decider()
    fact = json.dumps(purchase("late", "late")).encode()
    await company.session.client.request("resolution.inbox.late", fact, timeout=10)
    operator = Upstream(company.session, company.session.client, "late")
    answer = await operator.receipt("p-late")
    assert (answer["status"], answer["error"]["code"]) == ("rejected", "source_not_allowed")
    assert "admin sources add" in answer["error"]["message"]


async def test_a_source_registered_again_has_a_new_password(company: Company) -> None:
    from app.runtime.source_users import source_file

    await company.register("again", "facts")
    path = source_file(company.session.data_dir, "again")
    before = json.loads(path.read_text())["nats_password"]
    await company.stop("again")
    assert not path.exists()
    again = await company.register("again", "facts")
    assert json.loads(path.read_text())["nats_password"] != before
    await again.record(purchase("again", "again"))


async def test_a_source_reads_no_answer_of_another(company: Company) -> None:
    """Each source has an account of its own, so that no subscription reaches the answers of others."""
    heard: list[bytes] = []

    async def note(message: Any) -> None:
        heard.append(message.data)

    await company["till"].client.subscribe("_INBOX.>", cb=note)
    await company["till"].client.flush()
    assert (await company["desk"].action("private", agent_id="A-2", amount="1.00"))["outcome"] == "taken"
    await company["till"].client.flush()
    assert heard == []


async def test_an_id_that_is_not_canonical_is_refused_in_requests_and_facts(company: Company) -> None:
    hidden = "A-1\u200b"
    answer = await company["desk"].action("canonical", agent_id=hidden)
    assert answer["error"]["code"] == "id_not_canonical"
    await company["till"].publish(purchase("canonical", "till", id="p\u00a0canonical"))
    receipt = await company["till"].receipt("p\u00a0canonical")
    assert (receipt["status"], receipt["error"]["code"]) == ("rejected", "id_not_canonical")


async def test_history_mode_refuses_registered_sources(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, company_of(session, history=True) as past:
        answer = await past["desk"].action("h-1", agent_id="A-1", time="2026-01-05T10:00:00Z")
    assert answer["error"]["code"] == "source_not_allowed"


async def test_the_threat_model_lists_each_of_these_tests() -> None:
    """SECURITY.md names every test of this module, and no test that does not exist."""
    table = (ROOT / "SECURITY.md").read_text().partition("## Threat model")[2].partition("### Flagged")[0]
    here = {name for name in globals() if name.startswith("test_")}
    fine = {
        "test_the_threat_model_lists_each_of_these_tests",
        "test_an_unregistered_source_sends_other_facts_and_requests_actions",
        "test_a_source_with_the_profile_governance_grants_and_proposes",
    }
    listed = set(re.findall(r"`(test_\w+)` \|$", table, re.MULTILINE))
    elsewhere = {name for path in OTHER_TESTS for name in re.findall(r"def (test_\w+)", (ROOT / path).read_text())}
    assert here - fine <= listed
    assert listed <= here | elsewhere


OTHER_TESTS = (
    "tests/dashboard/test_openid.py",
    "tests/dashboard/test_sessions.py",
    "tests/domain/decisions/test_customers.py",
    "tests/dashboard/test_upstreams.py",
    "tests/domain/decisions/test_governance.py",
    "tests/domain/decisions/test_periods.py",
    "tests/dashboard/test_governance.py",
    "tests/decisions/test_concurrency.py",
)
"""Other modules with tests that SECURITY.md lists."""


# ---------------------------------------------------------------------- escalations


async def heard_by(client: LedgerClient, subject: str) -> list[Document]:
    """Return the list to which each message on a subject is added from now on."""
    heard: list[Document] = []

    async def hear(message: Msg) -> None:
        heard.append(json.loads(message.data))

    await client.subscribe(subject, cb=hear)
    await client.flush()
    return heard


async def filed_by(source: RegisteredSource, request_id: str, agent_id: str = "A-1") -> str:
    """File an escalation as a desk; return its id."""
    fields = {"agent_id": agent_id, "kind": "refund", "amount": gbp("90.00"), "reason": "late"}
    answer = await source.ask("escalation", request_id=request_id, operation="request", **fields)
    assert answer["outcome"] == "done", answer
    escalation_id: str = answer["escalation_id"]
    return escalation_id


async def kept_by(source: RegisteredSource) -> list[Document]:
    """Return the notifications that are kept for a source."""
    reply = await source.client.request(f"resolution.read.{source.source}.notifications", b"{}", timeout=10)
    items: list[Document] = json.loads(reply.data)["items"]
    return items


async def test_a_source_hears_and_reads_the_outcomes_of_its_own_escalations_alone(company: Company) -> None:
    desk, other, approver = company["desk"], company["other-desk"], company["approver"]
    own = await heard_by(desk.client, "resolution.notify.escalation.desk")
    foreign = await heard_by(other.client, "resolution.notify.>")
    shared = await heard_by(company.operator.client, "resolution.notify.escalation.*")
    deciding = await heard_by(approver.client, "resolution.notify.escalation.*")
    escalation_id = await filed_by(desk, "outcome-1")
    decision = {"operation": "deny", "escalation_id": escalation_id, "decided_by": "M-1"}
    assert (await approver.ask("escalation", request_id="outcome-2", **decision))["outcome"] == "done"

    await wait_until(lambda: len(own) == len(deciding) == 2)
    assert [(one["escalation_id"], one["status"]) for one in own] == [
        (escalation_id, "requested"),
        (escalation_id, "denied"),
    ]
    assert (foreign, shared) == ([], [])
    assert [one["escalation_id"] for one in await kept_by(desk)][-2:] == [escalation_id] * 2
    assert escalation_id not in [one["escalation_id"] for one in await kept_by(other)]
    assert [one["escalation_id"] for one in await kept_by(approver)][-2:] == [escalation_id] * 2


@pytest.mark.parametrize("name", ["shared", "other-desk", "approver"])
async def test_a_source_does_not_read_the_notifications_of_another(company: Company, name: str) -> None:
    client = company.operator.client if name == "shared" else company[name].client
    assert await is_silent(client, "resolution.read.desk.notifications", {})


async def test_nobody_decides_for_a_leaver_and_no_leaver_decides(company: Company) -> None:
    desk, approver, hr = company["desk"], company["approver"], company["hr"]
    for name, role, manager in (("L-1", "agent", "M-1"), ("L-2", "agent", "M-1"), ("L-3", "manager", "X-1")):
        joined: Document = {"employee_id": name, "role": role, "team_ids": ["phone"], "manager_id": manager}
        await hr.record(event(f"join-{name}", "employee.joined", "hr", **joined))
    await company.operator.wait_for_decider()
    of_leaver, of_other = await filed_by(desk, "leaver-1", "L-1"), await filed_by(desk, "leaver-2", "L-2")
    for name in ("L-1", "L-3"):
        await hr.record(event(f"left-{name}", "employee.left", "hr", employee_id=name))
    await company.operator.wait_for_decider()

    decision = {"operation": "approve", "escalation_id": of_leaver, "decided_by": "M-1"}
    answer = await approver.ask("escalation", request_id="leaver-3", **decision)
    assert answer["outcome"] in ("refused", "error")  # the timer may have ended it already
    decision = {"operation": "approve", "escalation_id": of_other, "decided_by": "L-3"}
    answer = await approver.ask("escalation", request_id="leaver-4", **decision)
    assert (answer["outcome"], answer["reasons"][0]["rule"]) == ("refused", "left")

    async def steps() -> list[str]:
        return [one["status"] for one in await kept_by(desk) if one["escalation_id"] == of_leaver]

    assert await eventually(steps, lambda found: len(found) == 2) == ["requested", "expired"]


async def test_a_delegation_forged_by_a_desk_gives_no_authority(company: Company) -> None:
    desk, approver = company["desk"], company["approver"]
    times: Document = {"from_time": "2020-01-01T00:00:00Z", "until_time": "2090-01-01T00:00:00Z"}
    forged = event("forged", "delegation.declared", "desk", from_employee_id="M-1", to_employee_id="A-2", **times)
    await desk.publish(forged)
    assert (await desk.receipt("forged"))["error"]["code"] == "source_not_allowed"
    decision = {"operation": "approve", "escalation_id": await filed_by(desk, "forged-1"), "decided_by": "A-2"}
    answer = await approver.ask("escalation", request_id="forged-2", **decision)
    assert (answer["outcome"], answer["reasons"][0]["rule"]) == ("refused", "approves")


async def test_an_ai_agent_approves_nothing_and_needs_a_person_who_answers_for_it(company: Company) -> None:
    desk, approver, hr = company["desk"], company["approver"], company["hr"]
    machine: Document = {"role": "manager", "team_ids": ["phone"], "kind": "ai", "accountable_id": "M-1"}
    await hr.record(event("join-ai", "employee.joined", "hr", employee_id="AI-1", **machine))
    await company.operator.wait_for_decider()
    decision = {"operation": "approve", "escalation_id": await filed_by(desk, "ai-1"), "decided_by": "AI-1"}
    answer = await approver.ask("escalation", request_id="ai-2", **decision)
    assert (answer["outcome"], answer["reasons"][0]["rule"]) == ("refused", "agent_kind")
    machine |= {"accountable_id": "AI-1"}
    await hr.record(event("change-ai", "employee.changed", "hr", employee_id="AI-1", **machine))
    await company.operator.wait_for_decider()
    action = {"agent_id": "AI-1", "kind": "refund", "amount": gbp("1.00"), "reason": "late"}
    answer = await desk.ask("action", request_id="ai-3", **action)
    assert (answer["outcome"], answer["reasons"][0]["rule"]) == ("refused", "accountable")


async def test_a_default_role_approves_nothing(company: Company) -> None:
    begins = datetime.now(UTC) + timedelta(seconds=1)
    policy = GOVERNED_POLICY | {"default_role": "manager", "effective_from": begins.isoformat()}
    fields: Document = {"policy": policy, "published_by": "owner", "break_glass": True, "reason": "a new default role"}
    answer = await company.operator.ask("policy", request_id="defaults", **fields)
    assert answer["outcome"] == "done"
    await asyncio.sleep((begins - datetime.now(UTC)).total_seconds())
    escalation_id = await filed_by(company["desk"], "default-1")
    decision = {"operation": "approve", "escalation_id": escalation_id, "decided_by": "invented"}
    answer = await company["approver"].ask("escalation", request_id="default-2", **decision)
    assert (answer["outcome"], answer["reasons"][0]["rule"]) == ("refused", "not_announced")
