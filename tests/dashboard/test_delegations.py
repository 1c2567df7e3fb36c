"""A signed-in person delegates the own decisions over HTTP, and nobody else's."""

from datetime import UTC, datetime, timedelta

from app.runtime.session import Session
from tests.support.http_api import client_with_token, served_with_tokens
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually

UNTIL = (datetime.now(UTC) + timedelta(days=1)).isoformat()


async def test_the_signed_in_person_delegates_and_the_delegate_approves(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens):
        upstream = Upstream(session, await session.upstream("test"))
        filed = await upstream.action("d-1", "90.00", agent_id="A-1", kind="refund", escalate=True)
        async with client_with_token(address, tokens["manager"]) as client:
            body = {"to_employee_id": "A-2", "until_time": UNTIL, "request_id": "away"}
            accepted, again = [await client.post("/api/v1/delegations", json=body) for _ in range(2)]
            assert (accepted.status_code, accepted.json()["id"]) == (202, again.json()["id"])
        (fact,) = await eventually(lambda: upstream.recorded("delegation.declared"), bool)
        assert (fact["from_employee_id"], fact["to_employee_id"]) == ("M-1", "A-2")
        await upstream.wait_for_decider()
        decision = {"operation": "approve", "escalation_id": filed["escalation_id"], "decided_by": "A-2"}
        assert (await upstream.ask("escalation", request_id="d-2", **decision))["outcome"] == "done"


async def test_a_delegation_names_no_other_person_as_its_giver(session: Session) -> None:
    async with (
        served_with_tokens(session) as (address, tokens),
        client_with_token(address, tokens["manager"]) as client,
    ):
        body = {"to_employee_id": "A-2", "until_time": UNTIL}
        for wrong in ({"from_employee_id": "X-1"}, {"to_employee_id": "M-1"}, {"until_time": "2020-01-01T00:00:00Z"}):
            assert (await client.post("/api/v1/delegations", json=body | wrong)).status_code == 422, wrong
