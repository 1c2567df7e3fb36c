"""One escalation with all that its decision rests on: what each role sees of it."""

from app.runtime.session import Session
from domain.commands import escalation_id_of
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.http_api import client_with_token, read_current, served_with_tokens
from tests.support.upstreams import Upstream, upstream_of


async def history(upstream: Upstream) -> None:
    """Record a customer with actions of two agents, two waiting escalations, and three decided ones."""
    await upstream.record(event("i", "interaction.opened", interaction_id="I-1", customer_id="C-1", channel="phone"))
    named = {"customer_id": "C-1", "interaction_id": "I-1"}
    for agent in ("A-1", "A-2"):
        assert (await upstream.action(f"given-{agent}", "4.00", agent_id=agent, **named))["outcome"] == "taken"
        await upstream.action(f"waits-{agent}", "70.00", agent_id=agent, escalate=True, reason="broken", **named)
    for number, operation in enumerate(("approve", "approve", "deny")):
        alike = f"alike-{number}"
        await upstream.action(alike, "60.00", escalate=True, reason="broken", customer_id=f"C-{number + 7}")
        decision = {"operation": operation, "escalation_id": escalation_id_of("crm", alike), "decided_by": "M-1"}
        assert (await upstream.ask("escalation", request_id=f"decide-{number}", **decision))["outcome"] == "done"
    await upstream.action("waits-M-2", "900.00", agent_id="M-2", escalate=True)
    await upstream.action("nameless", "80.00", escalate=True, reason="broken")


def ids(rows: list[Document], name: str) -> set[str]:
    return {row[name] for row in rows}


async def test_each_role_sees_of_an_escalation_what_concerns_it(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        await history(upstream)
        mine, other = escalation_id_of("crm", "waits-A-1"), escalation_id_of("crm", "waits-A-2")
        for role in ("manager", "auditor", "operator"):
            async with client_with_token(address, tokens[role]) as client:
                found = await read_current(client, f"escalations/{mine}")
                assert (found["escalation"]["escalation_id"], found["customer_ids"]) == (mine, ["C-1"])
                assert [row["agent_id"] for row in found["actions"]] == ["A-2", "A-1"]  # the newest first
                assert ids(found["waiting"], "escalation_id") == {other}
                assert ids(found["story"], "who") >= {"A-1", "A-2"}
                assert [limit["limit"]["amount"] for limit in found["limits"]] == ["50.00", "60.00"]
                assert (found["alike_decided"]["k"], found["alike_decided"]["n"]) == (2, 3)
                assert [row["status"] for row in found["alike"]] == ["denied", "approved", "approved"]
        async with client_with_token(address, tokens["agent"]) as agent:
            found = await read_current(agent, f"escalations/{mine}")
            assert ids(found["actions"], "agent_id") == {"A-1"}
            assert found["waiting"] == []
            assert ids(found["story"], "who") == {"A-1"}


async def test_an_escalation_that_a_reader_may_not_see_is_not_found(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        await history(upstream)
        async with client_with_token(address, tokens["operator"]) as operator:
            foreign = escalation_id_of("crm", "waits-M-2")
            assert (await read_current(operator, f"escalations/{foreign}"))["escalation"]["agent_id"] == "M-2"
            assert (await operator.get("/api/v1/escalations/esc-none")).status_code == 404
        for role, hidden in (("agent", escalation_id_of("crm", "waits-A-2")), ("manager", foreign)):
            async with client_with_token(address, tokens[role]) as client:
                assert (await client.get(f"/api/v1/escalations/{hidden}")).status_code == 404, role


async def test_an_escalation_without_a_customer_shows_nothing_of_others(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        await history(upstream)
        async with client_with_token(address, tokens["manager"]) as client:
            found = await read_current(client, f"escalations/{escalation_id_of('crm', 'nameless')}")
            assert (found["actions"], found["waiting"], found["story"], found["customer_ids"]) == ([], [], [], [])
