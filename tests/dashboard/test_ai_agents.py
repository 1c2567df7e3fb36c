"""An AI agent's actions and escalations over HTTP: told apart, and shown to the person who answers for it."""

from app.runtime.session import Session
from dashboard.auth.tokens import Tokens
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.http_api import client_with_token, read_current, served_with_tokens
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream


async def test_the_lists_tell_an_ai_agent_apart_and_show_its_escalation_to_the_person_asked(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens):
        upstream = Upstream(session, await session.upstream("test"))
        bot = {"kind": "ai", "budget": "100.00", "limits": {"refund": "20.00"}}
        policy = FULL_POLICY | {"roles": FULL_POLICY["roles"] | {"bot": bot}}
        assert (await upstream.ask("policy", request_id="bots", policy=policy, published_by="owner"))[
            "outcome"
        ] == "done"
        fields: Document = {"role": "bot", "team_ids": ["night"], "kind": "ai", "accountable_id": "M-2"}
        await upstream.record(event("join-ai", "employee.joined", employee_id="AI-1", **fields))
        await upstream.wait_for_decider()
        assert (await upstream.action("ai-1", "5.00", agent_id="AI-1"))["agent_kind"] == "ai"
        filed = await upstream.action("ai-2", "90.00", agent_id="AI-1", kind="refund", escalate=True)

        async with client_with_token(address, tokens["auditor"]) as client:
            machines = (await read_current(client, "actions", agent_kind="ai"))["items"]
            assert [(one["agent_id"], one["agent_kind"], one["team_id"]) for one in machines] == [
                ("AI-1", "ai", "night")
            ]
            people = (await read_current(client, "actions", agent_kind="human"))["items"]
            assert "AI-1" not in {one["agent_id"] for one in people}
        asked = await Tokens(session.client).make("m-2", "manager", "M-2", None)
        async with client_with_token(address, asked) as client:
            (escalation,) = (await read_current(client, "escalations"))["items"]
            assert (escalation["escalation_id"], escalation["agent_kind"]) == (filed["escalation_id"], "ai")
            path = f"/api/v1/escalations/{filed['escalation_id']}"
            assert (await client.post(path, json={"operation": "deny"})).json()["status"] == "denied"
