"""The cases from which this product comes, told through NATS alone (docs: the cases of empowered service)."""

from datetime import UTC, datetime, timedelta

from app.runtime.session import Session
from app.runtime.views import read_view
from projections.views.balances import read_balances
from tests.support.builders import event, gbp, reported_action
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of
from tests.support.waiting import eventually


async def test_the_doorstep(upstream: Upstream) -> None:
    """A driver refunds 5 pounds for a substituted item and leaves the item, without approval; also offline, afterwards."""
    await set_up_organisation(upstream)
    await upstream.record(event("c-1", "training.completed", employee_id="D-1", course_id="goodwill-basics"))
    await upstream.wait_for_decider()
    drop = {"agent_id": "D-1", "customer_id": "C-1", "interaction_id": "drop-7", "reason": "substituted item"}
    asked = datetime.now(UTC)
    refund = await upstream.action("r-1", "5.00", **drop)
    item = await upstream.action("r-2", "3.50", **(drop | {"kind": "keep_item"}))
    assert datetime.now(UTC) - asked < timedelta(seconds=2)
    assert (refund["outcome"], item["outcome"]) == ("taken", "taken")
    tunnel = reported_action(
        "off-1",
        "4.00",
        agent_id="D-1",
        reason="no network",
        customer_id="C-2",
        offline_reason="underground",
        time=datetime.now(UTC).isoformat(),
    )
    await upstream.record(tunnel)
    await eventually(lambda: upstream.budget("D-1"), lambda budget: budget["spent"] == "12.50")
    assert await upstream.recorded("escalation.requested") == []


async def test_no_script_no_clock(upstream: Upstream) -> None:
    """Any time, and repairs without a limit: only the budget ends them. Long is not refused."""
    await set_up_organisation(upstream)
    long_ago = (datetime.now(UTC) - timedelta(hours=10)).isoformat()
    opened = event("o-1", "interaction.opened", interaction_id="I-1", customer_id="C-1", channel="phone")
    await upstream.record(opened | {"time": long_ago})
    answer = await upstream.action("r-1", "60.00", kind="fix", interaction_id="I-1")
    assert (answer["outcome"], answer["reasons"]) == ("taken", [])
    (taken,) = await upstream.recorded("action.taken")
    assert "limit" not in next(limit for limit in taken["limits"] if limit["name"] == "per_action")


async def test_ask_what_they_cannot_do(upstream: Upstream) -> None:
    """Escalated and abandoned requests and their waiting times are in the log; staff report obstacles in words."""
    await set_up_organisation(upstream)
    up = await upstream.action("r-1", "55.00", escalate=True, interaction_id="I-1")
    await upstream.action("r-2", "70.00", interaction_id="I-2")
    await upstream.ask("preview", agent_id="A-1", kind="refund", amount=gbp("80.00"), reason="x", interaction_id="I-3")
    decision = {"operation": "approve", "escalation_id": up["escalation_id"], "decided_by": "M-1"}
    assert (await upstream.ask("escalation", request_id="d-1", **decision))["status"] == "approved"
    fell = [
        (one["interaction_id"], one["preview"], "escalation_id" in one)
        for one in await upstream.recorded("authority.fell_short")
    ]
    assert fell == [("I-1", False, True), ("I-2", False, False), ("I-3", True, False)]
    (approved,) = await upstream.recorded("escalation.approved")
    assert approved["waited_seconds"] >= 0
    words = event(
        "ob-1", "obstacle.reported", obstacle_id="O-1", employee_id="A-1", text="I may not give a gift", kind="gift"
    )
    await upstream.record(words)
    reply = event("ob-2", "obstacle.answered", obstacle_id="O-1", answered_by="M-1", text="From Monday you may")
    assert await upstream.record(reply)


async def test_clear_levels_of_autonomy(upstream: Upstream) -> None:
    """By role, kind, customer and period; training opens authority; a guideline is named; all of it in the event."""
    await set_up_organisation(upstream)
    assert (await upstream.action("r-1", "10.00", kind="keep_item"))["reasons"][0]["rule"] == "training"
    valid = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    course = event("c-1", "training.completed", employee_id="A-1", course_id="goodwill-basics", valid_until=valid)
    await upstream.record(course)
    await upstream.wait_for_decider()
    allowed = await upstream.action("r-2", "10.00", kind="keep_item", customer_id="C-1", guideline="made-right")
    assert allowed["outcome"] == "taken"
    assert (await upstream.action("r-3", "55.00"))["outcome"] == "escalate"
    assert (await upstream.action("r-4", "55.00", agent_id="D-1"))["outcome"] == "taken"  # a team may differ
    assert (await upstream.action("r-5", "400.00", agent_id="M-1"))["outcome"] == "taken"
    taken = next(one for one in await upstream.recorded("action.taken") if one["request_id"] == "r-2")
    assert (taken["training"], taken["guideline"], taken["policy_version"]) == (["goodwill-basics"], "made-right", 1)
    assert {limit["name"] for limit in taken["limits"]} == {"per_action", "per_customer", "budget"}


async def test_no_abuse_of_power(upstream: Upstream) -> None:
    """Actions for oneself, approvals of one's own request and decisions after leaving are refused and recorded."""
    await set_up_organisation(upstream)
    await upstream.record(event("r", "relationship.declared", employee_id="A-1", customer_id="C-1", nature="sister"))
    await upstream.record(event("b", "employee.left", employee_id="A-2"))
    await upstream.wait_for_decider()
    attempts = [
        await upstream.action("r-1", customer_id="C-1"),
        await upstream.action("r-2", customer_id="A-1"),
        await upstream.action("r-3", agent_id="A-2"),
    ]
    asked = await upstream.action("r-4", "600.00", agent_id="M-1", escalate=True)
    own = {"operation": "approve", "escalation_id": asked["escalation_id"], "decided_by": "M-1"}
    attempts.append(await upstream.ask("escalation", request_id="d-1", **own))
    assert [one["outcome"] for one in attempts] == ["refused"] * 4
    rules = [
        one["reasons"][0]["rule"]
        for one in await upstream.recorded("authority.fell_short")
        if one["outcome"] == "refused"
    ]
    assert rules == ["self_dealing", "self_dealing", "left", "own_request"]


async def test_a_manager_who_hesitates_looks_first(session: Session) -> None:
    """A policy in the shadow of the present one, then a trial in some teams, then for all; budgets never mix up."""
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream)
        roles = FULL_POLICY["roles"]
        generous = FULL_POLICY | {
            "roles": roles | {"agent": roles["agent"] | {"limits": {"refund": "70.00"}, "per_interaction": "90.00"}}
        }
        shadow = generous | {"mode": "shadow"}
        assert (await upstream.ask("policy", request_id="p-2", policy=shadow, published_by="o"))["outcome"] == "done"
        assert (await upstream.action("r-1", "65.00"))["outcome"] == "escalate"
        (fell,) = await upstream.recorded("authority.fell_short")
        assert fell["shadow"] == {"policy_version": 2, "outcome": "taken"}
        assert (await upstream.ask("policy", request_id="p-3", policy=generous, published_by="o"))["outcome"] == "done"
        assert (await upstream.action("r-2", "65.00"))["outcome"] == "taken"
        rows = (await read_view(session, "budget_balances", read_balances)).result
        assert [(row["holder"], row["spent"], row["remaining"]) for row in rows] == [
            ("agent:A-1", gbp("65.00"), gbp("135.00"))
        ]
