"""Escalations: filed, reserved, approved, denied, delegated, forwarded and expired, over NATS alone."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.runtime.session import Session
from app.runtime.views import read_view
from projections.views.balances import read_balances
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, two_at_work, upstream_of
from tests.support.waiting import eventually

BIG: Document = {"kind": "refund", "reason": "broken", "customer_id": "C-1", "interaction_id": "I-1"}


async def decide(upstream: Upstream, request_id: str, operation: str, escalation_id: str, by: str, **more: Any) -> Any:
    return await upstream.ask(
        "escalation", request_id=request_id, operation=operation, escalation_id=escalation_id, decided_by=by, **more
    )


async def balance(upstream: Upstream, holder: str) -> Document:
    """Return a holder's budget as the view of balances computes it from the log; records nothing."""
    rows = (await read_view(upstream.session, "budget_balances", read_balances)).result
    budget: Document
    *_, budget = [row for row in rows if row["holder"] == holder]  # of the latest period
    return budget


async def escalated(upstream: Upstream) -> str:
    """Let D-1 ask for 90 pounds, beyond the own authority, and escalate; return the escalation's id."""
    answer = await upstream.action("r-1", "90.00", agent_id="D-1", escalate=True, **BIG)
    assert answer["outcome"] == "escalate"
    assert [reason["rule"] for reason in answer["reasons"]] == ["per_action", "per_interaction"]
    escalation_id: str = answer["escalation_id"]
    return escalation_id


async def test_an_escalation_reserves_its_amount_and_its_approval_takes_the_action(upstream: Upstream) -> None:
    await set_up_organisation(upstream)

    escalation_id = await escalated(upstream)
    assert (await balance(upstream, "team:doorstep"))["reserved"] == gbp("90.00")

    answer = await decide(upstream, "d-1", "approve", escalation_id, "M-1", reason="fair")
    assert (answer["outcome"], answer["status"], answer["paid_by"]) == ("done", "approved", "team:doorstep")
    after = await balance(upstream, "team:doorstep")
    assert (after["reserved"], after["spent"]) == (gbp("0.00"), gbp("90.00"))


async def test_a_decided_escalation_answers_a_retry_and_refuses_another_decision(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    escalation_id = await escalated(upstream)
    answer = await decide(upstream, "d-1", "approve", escalation_id, "M-1", reason="fair")

    assert await decide(upstream, "d-1", "approve", escalation_id, "M-1", reason="fair") == answer
    late = await decide(upstream, "d-2", "deny", escalation_id, "M-1")
    assert late["error"]["code"] == "already_decided"


async def test_an_escalation_is_recorded_with_its_cause(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    escalation_id = await escalated(upstream)
    await decide(upstream, "d-1", "approve", escalation_id, "M-1", reason="fair")
    types = [stored["type"] for stored in await upstream.replay()]
    requested = types.index("resolution.escalation.requested.v1")
    assert types[requested - 1] == "resolution.authority.fell_short.v1"
    approved = types.index("resolution.escalation.approved.v1")
    assert types[approved + 1] == "resolution.action.taken.v1"  # in the same batch


async def test_less_may_be_approved_and_the_approver_pays_where_no_pool_does(upstream: Upstream) -> None:
    await set_up_organisation(upstream)

    asked = await upstream.ask(
        "escalation", request_id="e-1", operation="request", agent_id="A-1", amount=gbp("90.00"), **BIG
    )
    assert (asked["outcome"], asked["status"], asked["to"]) == ("done", "requested", ["M-1"])
    more = await decide(upstream, "d-0", "approve", asked["escalation_id"], "M-1", amount=gbp("90.01"))
    assert more["error"]["field"] == "amount.amount"
    answer = await decide(upstream, "d-1", "approve", asked["escalation_id"], "M-1", amount=gbp("70.00"))
    assert (answer["paid_by"], answer["amount"]) == ("agent:M-1", gbp("70.00"))
    assert (await balance(upstream, "agent:M-1"))["spent"] == gbp("70.00")
    assert (await balance(upstream, "agent:A-1"))["spent"] == gbp("0.00")


@pytest.mark.parametrize(("operation", "by"), [("deny", "M-1"), ("withdraw", "D-1")])
async def test_a_denied_or_withdrawn_escalation_frees_its_reserve(upstream: Upstream, operation: str, by: str) -> None:
    await set_up_organisation(upstream)
    escalation_id = await escalated(upstream)

    answer = await decide(upstream, "d-1", operation, escalation_id, by, reason="no")

    assert answer["outcome"] == "done"
    assert (await balance(upstream, "team:doorstep"))["reserved"] == gbp("0.00")


async def test_duties_are_separate_and_attempts_are_recorded(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await upstream.record(event("rel", "relationship.declared", employee_id="M-2", customer_id="C-1", nature="brother"))
    await upstream.record(event("bye", "employee.left", employee_id="X-1"))
    own = await upstream.action("r-0", "600.00", agent_id="M-1", kind="refund", escalate=True)
    big = await upstream.action("r-1", "90.00", agent_id="D-1", escalate=True, **BIG)
    huge = await upstream.action("r-2", "501.00", agent_id="D-1", kind="refund", escalate=True)
    for number, (escalation, operation, by, rule) in enumerate(
        [
            (own, "approve", "M-1", "own_request"),
            (own, "deny", "M-1", "own_request"),
            (big, "approve", "D-1", "own_request"),
            (big, "approve", "A-1", "approves"),
            (big, "approve", "X-1", "left"),
            (big, "approve", "M-2", "self_dealing"),
            (huge, "approve", "M-1", "approves"),
            (big, "withdraw", "M-1", "not_requester"),
        ]
    ):
        before = await upstream.session.log.last_position()
        answer = await decide(upstream, f"d-{number}", operation, escalation["escalation_id"], by)
        assert (answer["outcome"], answer["reasons"][0]["rule"]) == ("refused", rule), (operation, by)
        recorded = await upstream.session.log.at(before + 1)
        assert recorded is not None
        assert json.loads(recorded.data)["data"]["agent_id"] == by
    assert (await decide(upstream, "d-x", "approve", "esc-none", "M-1"))["error"]["code"] == "unknown_escalation"
    ghost = await decide(upstream, "d-y", "approve", big["escalation_id"], "ghost")
    assert (ghost["error"]["code"], ghost["error"]["field"]) == ("unknown_agent", "decided_by")


async def test_a_delegate_has_the_authority_of_the_delegator(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    asked = await upstream.action("r-1", "90.00", agent_id="A-1", escalate=True, **BIG)
    refused = await decide(upstream, "d-1", "approve", asked["escalation_id"], "A-2")
    assert refused["outcome"] == "refused"
    now = datetime.now(UTC)
    fact = event(
        "del",
        "delegation.declared",
        from_employee_id="M-1",
        to_employee_id="A-2",
        from_time=(now - timedelta(hours=1)).isoformat(),
        until_time=(now + timedelta(hours=1)).isoformat(),
    )
    await upstream.record(fact)
    await upstream.wait_for_decider()
    answer = await decide(upstream, "d-2", "approve", asked["escalation_id"], "A-2")
    assert (answer["outcome"], answer["paid_by"]) == ("done", "agent:M-1")
    taken = (await upstream.replay())[-2]["data"]
    assert (taken["decided_by"], taken["on_behalf_of"]) == ("A-2", "M-1")


async def test_an_escalation_that_no_approver_may_allow_is_refused(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    answer = await upstream.action("r-1", "300.00", agent_id="A-1", kind="credit", escalate=True)
    assert (answer["outcome"], answer["reasons"][-1]["rule"]) == ("refused", "approves")
    for number in range(3):
        await upstream.action(f"p-{number}", "300.00", agent_id="D-1", kind="refund", escalate=True)
    short = await upstream.action("r-2", "200.00", agent_id="D-1", kind="refund", escalate=True)
    assert (short["outcome"], short["reasons"][-1]["rule"]) == ("refused", "payer")


async def test_an_escalation_is_forwarded_to_another_approver(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    asked = await upstream.action("r-1", "90.00", agent_id="A-1", escalate=True, **BIG)
    up = await decide(upstream, "d-1", "forward", asked["escalation_id"], "M-1")
    assert up["to"] == ["X-1"]
    other = await decide(upstream, "d-2", "forward", asked["escalation_id"], "M-1", to="M-2")
    assert other["to"] == ["M-2"]
    for to in ("A-1", "ghost"):
        wrong = await decide(upstream, f"d-{to}", "forward", asked["escalation_id"], "M-1", to=to)
        assert wrong["error"]["field"] == "to"


async def test_an_unanswered_escalation_is_forwarded_and_then_expires(session: Session) -> None:
    """The escalation waits 48 hours at each level; in history mode the requests' times are the clock."""
    async with upstream_of(session, history=True) as upstream:
        await set_up_organisation(upstream)
        day = datetime(2026, 3, 2, 9, tzinfo=UTC)
        asked = await upstream.action("r-1", "90.00", agent_id="D-1", escalate=True, time=day.isoformat(), **BIG)
        for number, hours in enumerate((47, 49, 97, 145)):
            moment = (day + timedelta(hours=hours)).isoformat()
            await upstream.action(f"t-{number}", "1.00", agent_id="A-2", time=moment)
        events = [stored for stored in await upstream.replay() if "escalation" in stored["type"]]
        assert [stored["type"].split(".")[2] for stored in events] == ["requested", "forwarded", "expired"]
        assert events[1]["data"]["to"] == ["X-1"]
        assert events[1]["data"]["waited_seconds"] == 48 * 3600
        closed = await decide(upstream, "d-1", "approve", asked["escalation_id"], "M-1")
        assert closed["error"]["code"] == "already_decided"
        pool = await balance(upstream, "team:doorstep")
        assert pool["reserved"] == gbp("0.00")


async def test_an_escalation_is_approved_in_a_later_period(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        await set_up_organisation(upstream)
        asked = await upstream.action("r-1", "90.00", agent_id="D-1", escalate=True, time="2026-03-31T12:00:00Z", **BIG)
        answer = await decide(upstream, "d-1", "approve", asked["escalation_id"], "M-1", time="2026-04-01T12:00:00Z")
        assert answer["status"] == "approved"
        events = {
            (e["data"]["holder"], e["data"]["period"]): e["data"]
            for e in await upstream.replay()
            if e["type"] == "resolution.budget.closed.v1"
        }
        assert events["team:doorstep", "2026-03"]["reserved"] == gbp("90.00")
        taken = (await upstream.replay())[-2]["data"]
        assert (taken["holder"], taken["period"]) == ("team:doorstep", "2026-04")


async def test_with_two_deciders_an_escalation_expires_once(session: Session) -> None:
    policy = FULL_POLICY | {"escalation": {"payer": "team", "after_hours": 0.0003, "then": "expire"}}
    async with two_at_work(session) as upstream:
        await set_up_organisation(upstream, policy)
        for number in range(10):
            await upstream.action(f"r-{number}", "70.00", agent_id="D-1", kind="refund", escalate=True)
        await eventually(lambda: upstream.recorded("escalation.expired"), lambda expired: len(expired) >= 10)
        await asyncio.sleep(0.5)  # a second decider would expire them again by now
        expired = [one["escalation_id"] for one in await upstream.recorded("escalation.expired")]
        assert len(expired) == len(set(expired)) == 10
        assert (await balance(upstream, "team:doorstep"))["reserved"] == gbp("0.00")
