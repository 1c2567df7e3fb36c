"""Limits beyond the budget: pools, caps by customer and interaction, trials, shadows, currencies. Through NATS alone."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from app.runtime.session import Session
from tests.support.builders import event, gbp, reported_action
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY, FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of
from tests.support.waiting import eventually


def changed_role(role: str, **changes: Any) -> Document:
    roles = FULL_POLICY["roles"]
    return FULL_POLICY | {"roles": roles | {role: roles[role] | changes}}


async def test_a_pool_is_drawn_in_steps_once_the_budget_is_short(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    for number in range(4):
        assert (await upstream.action(f"r-{number}", "50.00", agent_id="D-1"))["outcome"] == "taken"
    answer = await upstream.action("r-4", "30.00", agent_id="D-1", customer_id="C-9")
    budget = answer["budget"]
    assert (budget["granted"], budget["spent"]) == (gbp("300.00"), gbp("230.00"))
    events = await upstream.replay()
    draws = [(e["data"]["holder"], e["data"]["direction"]) for e in events if e["type"] == "resolution.budget.drawn.v1"]
    assert draws == [("team:doorstep", "out"), ("agent:D-1", "in")]
    alone = [await upstream.action(f"a-{number}", "50.00") for number in range(5)]
    assert [one["outcome"] for one in alone] == ["taken"] * 4 + ["escalate"]  # phone has no pool


async def test_an_action_beyond_an_empty_pool_is_escalated_with_the_pool_as_reason(upstream: Upstream) -> None:
    policy = FULL_POLICY | {"teams": {"doorstep": {"pool": "30.00"}}}
    await set_up_organisation(upstream, policy)
    for number in range(4):
        await upstream.action(f"r-{number}", "50.00", agent_id="D-1")
    assert (await upstream.ask("preview", agent_id="D-1", kind="refund", reason="x"))["available"] == gbp("30.00")
    assert (await upstream.action("r-5", "20.00", agent_id="D-2"))["outcome"] == "taken"
    answer = await upstream.action("r-6", "31.00", agent_id="D-1")
    assert [reason["rule"] for reason in answer["reasons"]] == ["budget", "pool"]
    exact = await upstream.action("r-7", "30.00", agent_id="D-1")
    assert (exact["outcome"], exact["budget"]["remaining"]) == ("taken", gbp("0.00"))


async def test_one_interaction_counts_for_all_agents(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await upstream.action("r-1", "40.00", interaction_id="I-1")
    answer = await upstream.action("r-2", "21.00", agent_id="A-2", interaction_id="I-1")
    assert (answer["outcome"], answer["reasons"][0]["rule"]) == ("escalate", "per_interaction")
    assert answer["reasons"][0]["used"] == gbp("40.00")
    assert (await upstream.action("r-3", "20.00", agent_id="A-2", interaction_id="I-1"))["outcome"] == "taken"


async def test_a_customer_and_their_household_have_one_cap(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await upstream.record(event("l-1", "customer.linked", a="C-1", b="C-2", relation="household"))
    await upstream.record(event("l-2", "customer.linked", a="C-2", b="C-3", relation="same_person"))
    await upstream.wait_for_decider()
    await upstream.action("r-1", "50.00", customer_id="C-1")
    await upstream.action("r-2", "40.00", agent_id="A-2", customer_id="C-2")
    answer = await upstream.action("r-3", "11.00", agent_id="D-1", customer_id="C-3")
    assert (answer["reasons"][0]["rule"], answer["reasons"][0]["used"]) == ("per_customer", gbp("90.00"))
    await upstream.record(event("p-1", "purchase.completed", "till", order_id="O-1", total=gbp("11.00")))
    await upstream.wait_for_decider()
    owed = {"customer_id": "C-3", "basis": "correction", "order_id": "O-1"}
    assert (await upstream.action("r-4", "11.00", agent_id="D-1", **owed))["outcome"] == "taken"
    guards = await upstream.recorded("customer.charged")
    assert [(guard["customer_id"], guard["used"]) for guard in guards] == [("C-1", gbp("50.00"))]
    await upstream.record(event("l-3", "customer.unlinked", a="C-2", b="C-3", relation="same_person"))
    await upstream.wait_for_decider()
    assert (await upstream.action("r-5", "11.00", agent_id="D-1", customer_id="C-3"))["outcome"] == "taken"


async def test_a_customer_cap_counts_the_last_90_days(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        await set_up_organisation(upstream)
        await upstream.action("r-1", "50.00", customer_id="C-1", time="2026-01-01T12:00:00Z")
        await upstream.action("r-2", "50.00", customer_id="C-1", time="2026-03-01T12:00:00Z")
        over = await upstream.action("r-3", "1.00", customer_id="C-1", time="2026-03-31T12:00:00Z")
        assert over["outcome"] == "escalate"
        after = await upstream.action("r-4", "1.00", customer_id="C-1", time="2026-04-01T12:00:01Z")
        assert after["outcome"] == "taken"


async def test_an_agent_may_not_act_for_a_customer_of_the_own_household(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await upstream.record(event("l-1", "customer.linked", a="A-1", b="C-2", relation="household"))
    await upstream.wait_for_decider()
    assert (await upstream.action("r-1", customer_id="C-2"))["reasons"][0]["rule"] == "self_dealing"
    assert (await upstream.action("r-2", agent_id="A-2", customer_id="C-2"))["outcome"] == "taken"


async def test_a_trial_raises_a_limit_in_the_teams_it_has_drawn(upstream: Upstream) -> None:
    until = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    trial = {
        "limit": {"role": "agent", "kind": "refund", "amount": "70.00"},
        "share_of_teams": 0.5,
        "seed": 7,
        "until": until,
    }
    await set_up_organisation(upstream)
    policy = changed_role("agent", per_interaction="200.00") | {"trial": trial}
    answer = await upstream.ask("policy", request_id="p-2", policy=policy, published_by="owner")
    assert len(answer["trial_teams"]) == 1
    recorded = (await upstream.replay())[-1]["data"]
    assert recorded["trial_teams"] == answer["trial_teams"]
    drawn = {"phone": "A-1", "doorstep": "D-1"}
    for team, agent in drawn.items():
        outcome = (await upstream.action(f"r-{team}", "65.00", agent_id=agent))["outcome"]
        assert outcome == ("taken" if team in answer["trial_teams"] else "escalate")
    over = policy | {"trial": trial | {"until": "2026-01-01T00:00:00Z"}}
    await upstream.ask("policy", request_id="p-3", policy=over, published_by="owner")
    assert (await upstream.action("r-9", "65.00"))["outcome"] == "escalate"


async def test_a_shadow_policy_is_recorded_and_decides_nothing(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    shadow = changed_role("agent", limits={"refund": "10.00"}, budget="20.00") | {"mode": "shadow"}
    answer = await upstream.ask("policy", request_id="p-2", policy=shadow, published_by="owner")
    assert answer["policy_version"] == 2
    assert (await upstream.action("r-1", "10.00"))["policy_version"] == 1
    assert (await upstream.action("r-2", "15.00"))["outcome"] == "taken"
    assert (await upstream.action("r-3", "60.00"))["outcome"] == "escalate"
    seen = [e["data"]["shadow"] for e in await upstream.replay() if "shadow" in e["data"]]
    said = [
        (one["policy_version"], one["outcome"], [reason["rule"] for reason in one.get("reasons", [])]) for one in seen
    ]
    assert said == [
        (2, "taken", []),
        (2, "escalate", ["per_action", "budget"]),
        (2, "escalate", ["per_action", "budget"]),
    ]
    await upstream.ask("policy", request_id="p-3", policy=FULL_POLICY, published_by="owner")
    await upstream.action("r-4", "1.00")
    assert "shadow" not in (await upstream.replay())[-1]["data"]


async def test_a_preview_beyond_authority_is_recorded_once(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    ask = {"agent_id": "A-1", "kind": "refund", "reason": "late", "amount": gbp("90.00"), "interaction_id": "I-1"}
    for _ in range(3):
        assert (await upstream.ask("preview", **ask))["outcome"] == "escalate"
    await asyncio.gather(*(upstream.ask("preview", **(ask | {"interaction_id": "I-2"})) for _ in range(10)))
    await upstream.ask("preview", **(ask | {"kind": "credit"}))
    noted = await upstream.recorded("authority.fell_short")
    assert sorted((one["interaction_id"], one["kind"], one["preview"]) for one in noted) == [
        ("I-1", "credit", True),
        ("I-1", "refund", True),
        ("I-2", "refund", True),
    ]


async def test_a_preview_and_the_decision_after_it_agree(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    for number in range(60):
        agent = ("A-1", "D-1", "M-1")[number % 3]
        fields: Document = {
            "agent_id": agent,
            "kind": ("refund", "keep_item", "gift", "credit")[number % 4],
            "reason": "late",
            "amount": gbp(f"{number * 7 % 90}.00"),
            "customer_id": f"C-{number % 5}",
            "interaction_id": f"I-{number % 7}",
            "escalate": number % 2 == 0,
            "hold": number % 5 == 0,
        }
        preview = await upstream.ask("preview", **fields)
        decision = await upstream.ask("action", request_id=f"r-{number}", **fields)
        assert (preview["outcome"], preview["reasons"]) == (decision["outcome"], decision["reasons"]), fields


async def test_a_transfer_moves_at_most_the_remaining_budget(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    ask = {"operation": "transfer", "holder": "agent:A-1", "granted_by": "M-1", "reason": "holiday"}
    answer = await upstream.ask("budget", request_id="t-1", to_holder="agent:A-2", amount=gbp("150.00"), **ask)
    assert (answer["outcome"], answer["budget"]["remaining"]) == ("done", gbp("50.00"))
    assert (await upstream.action("r-1", agent_id="A-2"))["budget"]["granted"] == gbp("350.00")
    over = await upstream.ask("budget", request_id="t-2", to_holder="agent:A-2", amount=gbp("50.01"), **ask)
    assert over["error"]["code"] == "insufficient"
    itself = await upstream.ask("budget", request_id="t-3", to_holder="agent:A-1", amount=gbp("1.00"), **ask)
    assert itself["error"]["field"] == "to_holder"
    moved = await upstream.recorded("budget.transferred")
    assert [(one["holder"], one["direction"]) for one in moved] == [("agent:A-1", "out"), ("agent:A-2", "in")]


async def test_currencies_are_never_summed(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await upstream.action("r-1", "50.00")
    yen = {"amount": "900", "currency": "JPY"}
    ask = {"agent_id": "A-1", "kind": "refund", "reason": "late"}
    assert (await upstream.ask("action", request_id="r-2", amount=yen, **ask))["error"]["code"] == "currency"
    fact = reported_action("off", amount=yen, reason="abroad")
    await upstream.record(fact)
    (charge,) = await eventually(lambda: upstream.recorded("action.charged"))
    assert charge["overdrawn"] == yen
    euros = BASIC_POLICY | {"currency": "EUR", "default_role": "agent"}
    await upstream.ask("policy", request_id="p-2", policy=euros, published_by="owner")
    five: Document = {"amount": {"amount": "5.00", "currency": "EUR"}}
    answer = await upstream.ask("action", request_id="r-3", **ask, **five)
    assert answer["budget"]["granted"] == {"amount": "0.00", "currency": "EUR"}  # the period has a grant in GBP
    answer = await upstream.ask("action", request_id="r-4", **(ask | {"agent_id": "A-2"}), **five)
    assert answer["budget"]["granted"] == {"amount": "200.00", "currency": "EUR"}
    assert answer["budget"]["spent"] == {"amount": "5.00", "currency": "EUR"}
