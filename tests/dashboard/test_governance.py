"""Governance over HTTP: each person by their own token; no field names another person."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from app.runtime.session import Session
from dashboard.auth.tokens import Tokens
from tests.support.documents import Document
from tests.support.http_api import client_with_token, read_current, served_with_tokens
from tests.support.organisations import FULL_POLICY

POLICY: Document = FULL_POLICY | {
    "governance": {
        "policies": {"propose": ["role:manager"], "approvals": 1},
        "grants": {"manager": {"per_period": "100.00", "to": "own_teams"}},
        "transfers": {"manager": "own_teams"},
        "reviews": ["role:manager"],
    }
}
NEXT: Document = POLICY | {"effective_from": "2036-01-01T00:00:00Z"}


class Person:
    """A signed-in person."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def post(self, path: str, **body: Any) -> tuple[int, Document]:
        """Send a command; return its status and answer."""
        answer = await self.client.post(f"/api/v1/{path}", json=body)
        return answer.status_code, answer.json()


@asynccontextmanager
async def people(session: Session) -> AsyncIterator[dict[str, Person]]:
    """Serve the API under a policy with governance; yield two managers and an operator."""
    async with served_with_tokens(session, POLICY) as (address, tokens), AsyncExitStack() as open_clients:
        other = await Tokens(session.client).make("second", "manager", "M-2", None)
        found = {"M-1": tokens["manager"], "M-2": other, "operator": tokens["operator"]}
        clients = {name: client_with_token(address, token) for name, token in found.items()}
        yield {name: Person(await open_clients.enter_async_context(client)) for name, client in clients.items()}


async def test_two_people_who_signed_in_change_the_policy(session: Session) -> None:
    async with people(session) as who:
        status, proposed = await who["M-1"].post("policies", operation="propose", policy=NEXT, replaces=1)
        assert (status, proposed["status"], proposed["missing"]) == (200, "proposed", 1), proposed
        step = {"operation": "approve", "sha256": proposed["sha256"]}
        (waiting,) = (await who["M-2"].client.get("/api/v1/policies")).json()["items"]
        assert (waiting["sha256"], waiting["state"], waiting["policy"]) == (proposed["sha256"], "open", NEXT)
        for person in ("M-1", "operator"):
            status, refused = await who[person].post("policies", **step)
            assert (status, refused["code"]) == (409, "not_governor"), (person, refused)
        status, approved = await who["M-2"].post("policies", **step)
        assert (status, approved["status"], approved["policy_version"]) == (200, "published", 2), approved
        published = json.loads((await session.log.read_subject("ledger.policy"))[-1].data)["data"]
        assert (published["published_by"], published["approved_by"]) == ("M-1", ["M-2"])


async def test_no_field_names_another_person(session: Session) -> None:
    async with people(session) as who:
        for field in ("proposed_by", "approved_by", "published_by", "break_glass"):
            body: Document = {"operation": "propose", "policy": NEXT, "replaces": 1, field: "M-2"}
            assert (await who["M-1"].post("policies", **body))[0] == 422
        body = {"operation": "grant", "holder": "agent:A-1", "reason": "busy", "granted_by": "M-2"}
        assert (await who["M-1"].post("budgets", amount={"amount": "1.00", "currency": "GBP"}, **body))[0] == 422


async def test_a_person_grants_within_the_amount_a_period(session: Session) -> None:
    async with people(session) as who:
        body: Document = {"operation": "grant", "holder": "agent:A-1", "reason": "busy"}
        amount = {"amount": "60.00", "currency": "GBP"}
        assert (await who["M-1"].post("budgets", amount=amount, **body))[1]["outcome"] == "done"
        status, refused = await who["M-1"].post("budgets", amount=amount, **body)
        assert (status, refused["code"]) == (409, "insufficient"), refused
        status, refused = await who["M-1"].post("budgets", amount=amount, **(body | {"holder": "agent:M-1"}))
        assert (status, refused["code"]) == (409, "not_governor"), refused
        assert (await who["operator"].post("budgets", amount=amount, **body))[1]["outcome"] == "done"


async def test_another_limit_is_proposed_where_policies_are_governed(session: Session) -> None:
    async with people(session) as who:
        limit: Document = {"role": "agent", "kind": "refund", "amount": {"amount": "80.00", "currency": "GBP"}}
        for mode in ("shadow", "trial"):
            status, answer = await who["M-1"].post("policies", mode=mode, **limit)
            assert (status, answer["status"]) == (200, "proposed"), answer


async def test_a_limit_is_proposed_and_published_with_its_evidence(session: Session) -> None:
    """Over a limit of 4.00, two people of M-1 would have asked for their 5.00; the team of the third has a limit of its own."""
    async with people(session) as who:
        lower: Document = {"role": "agent", "kind": "refund", "amount": {"amount": "4.00", "currency": "GBP"}}
        await read_current(who["M-1"].client, "what-if", role="agent", kind="refund", amount="4.00 GBP")
        wanted = {"mode": "enforced", "role": "agent", "kind": "refund", "amount": "4.00 GBP"}
        change = (await who["M-1"].client.get("/api/v1/policies/change", params=wanted)).json()
        assert (change["proposed"], [one["field"] for one in change["changes"]]) == (
            True,
            ["effective_from", "roles.agent.limits.refund"],
        )
        for wrong in ({"role": "a" * 10_001}, {"amount": "1.2345 CLF"}):
            answer = await who["M-1"].client.get("/api/v1/policies/change", params=wanted | wrong)
            assert answer.status_code == 422, wrong
        stale = change["replaces"] - 1
        status, refused = await who["M-1"].post("policies", mode="enforced", replaces=stale, **lower)
        assert (status, refused["field"]) == (409, "replaces"), refused
        status, proposed = await who["M-1"].post("policies", mode="enforced", replaces=change["replaces"], **lower)
        assert (status, proposed["status"]) == (200, "proposed"), proposed
        (waiting,) = (await who["M-2"].client.get("/api/v1/policies")).json()["items"]
        evidence = waiting["evidence"]
        assert (evidence["limit"], evidence["people_of"]) == (lower["amount"], "M-1")
        assert (evidence["given_at_once"], evidence["would_escalate"]) == (0, 2)
        status, approved = await who["M-2"].post("policies", operation="approve", sha256=proposed["sha256"])
        assert (status, approved["status"]) == (200, "published"), approved
        newest = (await who["M-2"].client.get("/api/v1/policies/versions")).json()["items"][0]
        assert newest["evidence"] == evidence
        assert [(one["field"], one["after"]) for one in newest["changes"]][1:] == [
            ("roles.agent.limits.refund", "4.00")
        ]
        for field, body in {
            "role": lower | {"role": "boss"},
            "amount": lower | {"amount": {"amount": "4.00", "currency": "EUR"}},
        }.items():
            status, refused = await who["M-1"].post("policies", mode="enforced", **body)
            assert (status, refused["field"]) == (409, field), refused
