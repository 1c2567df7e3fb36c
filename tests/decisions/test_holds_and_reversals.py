"""Holds, settlements, reversals and reported actions, over NATS alone."""

import asyncio
from typing import Any

import pytest

from app.runtime.session import Session
from tests.support.builders import event, gbp, reported_action
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, two_at_work, upstream_of
from tests.support.waiting import eventually


def amounts(granted: str, spent: str, reserved: str, remaining: str) -> dict[str, str]:
    return {"granted": granted, "spent": spent, "reserved": reserved, "remaining": remaining}


async def take_hold(upstream: Upstream, request_id: str, amount: str, **more: Any) -> str:
    answer = await upstream.action(request_id, amount, hold=True, **more)
    assert answer["outcome"] == "held", answer
    action_id: str = answer["action_id"]
    return action_id


async def test_a_hold_reserves_and_settling_frees_the_rest(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    action_id = await take_hold(upstream, "r-1", "30.00", interaction_id="I-1")
    assert await upstream.budget() == amounts("200.00", "0.00", "30.00", "170.00")
    over = await upstream.action("r-2", "40.00", interaction_id="I-1")
    assert over["reasons"][0]["rule"] == "per_interaction"  # what is held counts
    hold = {"action_id": action_id, "operation": "settle"}
    more = await upstream.ask("hold", request_id="h-0", amount=gbp("30.01"), **hold)
    assert more["error"]["field"] == "amount.amount"
    answer = await upstream.ask("hold", request_id="h-1", amount=gbp("20.00"), **hold)
    assert (answer["outcome"], answer["amount"]) == ("done", gbp("20.00"))
    assert await upstream.budget() == amounts("200.00", "20.00", "0.00", "180.00")
    assert await upstream.ask("hold", request_id="h-1", amount=gbp("20.00"), **hold) == answer
    again = await upstream.ask("hold", request_id="h-2", **hold)
    assert again["error"]["code"] == "not_held"
    assert (await upstream.action("r-3", "40.00", interaction_id="I-1"))["outcome"] == "taken"


async def test_a_void_frees_everything(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    action_id = await take_hold(upstream, "r-1", "30.00")
    answer = await upstream.ask("hold", request_id="h-1", action_id=action_id, operation="void", reason="card refused")
    assert answer["outcome"] == "done"
    assert await upstream.budget() == amounts("200.00", "0.00", "0.00", "200.00")
    unknown = await upstream.ask("hold", request_id="h-2", action_id="act-none", operation="void")
    assert (unknown["error"]["code"], unknown["error"]["field"]) == ("unknown_action", "action_id")


async def test_a_settlement_fact_settles_a_hold_once_and_by_no_more_than_was_held(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    action_id = await take_hold(upstream, "r-1", "30.00")
    await upstream.wait_for_decider()  # the hold is read back before the fact is
    fact = event("s-1", "refund.settled", action_id=action_id, total=gbp("31.00"), processor_reference="P-1")
    await upstream.record(fact)
    await wait_until_spent(upstream, "30.00")
    assert await upstream.budget() == amounts("200.00", "30.00", "0.00", "170.00")
    assert [one["beyond"] for one in await upstream.recorded("action.settled")] == [gbp("1.00")]
    await upstream.record(event("s-2", "refund.settled", action_id=action_id, total=gbp("31.00")))
    await asyncio.sleep(0.3)
    assert (await upstream.budget())["spent"] == "30.00"


async def wait_until_spent(upstream: Upstream, amount: str) -> None:
    """Wait until a reported action or a settlement is posted to A-1's budget: it follows its fact."""
    await eventually(upstream.budget, lambda budget: budget["spent"] == amount)


async def test_reversals_restore_recovered_amounts_up_to_the_action(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    action_id = (await upstream.action("r-1", "50.00"))["action_id"]
    ask = {"action_id": action_id, "reversed_by": "M-1", "reason": "returned"}
    first = await upstream.ask("reversal", request_id="v-1", amount=gbp("20.00"), recovered=True, **ask)
    assert (first["outcome"], first["amount"]) == ("done", gbp("20.00"))
    assert await upstream.budget() == amounts("200.00", "30.00", "0.00", "170.00")
    over = await upstream.ask("reversal", request_id="v-2", amount=gbp("30.01"), recovered=True, **ask)
    assert over["error"]["field"] == "amount.amount"
    lost = await upstream.ask("reversal", request_id="v-3", amount=gbp("10.00"), recovered=False, **ask)
    assert lost["budget"]["spent"] == gbp("30.00")
    rest = await upstream.ask("reversal", request_id="v-4", recovered=True, **ask)
    assert rest["amount"] == gbp("20.00")
    assert (await upstream.budget())["spent"] == "10.00"
    nothing = await upstream.ask("reversal", request_id="v-5", recovered=True, **ask)
    assert nothing["error"]["code"] == "nothing_left"
    assert await upstream.ask("reversal", request_id="v-1", amount=gbp("20.00"), recovered=True, **ask) == first
    hold = await take_hold(upstream, "r-2", "5.00")
    refused = await upstream.ask("reversal", request_id="v-6", recovered=True, **(ask | {"action_id": hold}))
    assert refused["error"]["code"] == "not_taken"


async def test_concurrent_reversals_do_not_exceed_the_action(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    action_id = (await upstream.action("r-1", "50.00"))["action_id"]
    ask = {"action_id": action_id, "reversed_by": "M-1", "reason": "returned", "recovered": True}
    answers = await asyncio.gather(
        *(upstream.ask("reversal", request_id=f"v-{number}", amount=gbp("20.00"), **ask) for number in range(6))
    )
    assert sorted(answer["outcome"] for answer in answers) == ["done"] * 2 + ["error"] * 4
    assert (await upstream.budget())["spent"] == "10.00"


async def test_late_settlements_and_reversals_post_to_the_open_period(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        await set_up_organisation(upstream)
        action_id = (await upstream.action("r-1", "50.00", time="2026-03-30T12:00:00Z"))["action_id"]
        hold = await take_hold(upstream, "r-2", "30.00", time="2026-03-31T12:00:00Z")
        later = {"time": "2026-04-02T12:00:00Z"}
        settled = await upstream.ask("hold", request_id="h-1", action_id=hold, operation="settle", **later)
        assert settled["budget"]["period"] == "2026-04"
        assert settled["budget"]["granted"] == gbp("280.00")  # 200, 50 carried over, 30 held
        answer = await upstream.ask(
            "reversal",
            request_id="v-1",
            action_id=action_id,
            reversed_by="M-1",
            reason="returned",
            recovered=True,
            **later,
        )
        assert (answer["budget"]["granted"], answer["budget"]["spent"]) == (gbp("330.00"), gbp("30.00"))
        events = await upstream.replay()
        closed = next(e["data"] for e in events if e["type"] == "resolution.budget.closed.v1")
        assert (closed["spent"], closed["carried_over"], closed["lapsed"], closed["reserved"]) == (
            gbp("50.00"),
            gbp("50.00"),
            gbp("70.00"),
            gbp("30.00"),
        )
        assert events[-1]["data"]["relates_to"] == next(e["position"] for e in events if "action.taken" in e["type"])


async def test_an_unsettled_hold_expires(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        await set_up_organisation(upstream)
        await take_hold(upstream, "r-1", "30.00", time="2026-03-02T12:00:00Z")
        await upstream.action("r-2", "1.00", agent_id="A-2", time="2026-03-09T11:59:00Z")
        assert (await upstream.budget(time="2026-03-09T11:59:00Z"))["reserved"] == "30.00"
        await upstream.action("r-3", "1.00", agent_id="A-2", time="2026-03-09T13:00:00Z")
        assert (await upstream.budget(time="2026-03-09T13:00:00Z"))["reserved"] == "0.00"
        voided = await upstream.recorded("action.voided")
        assert [void["reason"] for void in voided] == ["expired"]


async def test_a_reported_action_is_charged_once_even_beyond_the_budget(session: Session) -> None:
    """Two deciders see each fact, and a restarted one sees it again."""
    async with two_at_work(session) as upstream:
        await set_up_organisation(upstream)
        now = (await upstream.action("r-0", "10.00"))["budget"]["period"]
        for number in range(5):
            fact = reported_action(
                f"off-{number}", "50.00", reason="no network", offline_reason="cellar", time=f"{now}-01T10:00:00Z"
            )
            await upstream.record(fact)
        await upstream.record(event("paid", "purchase.completed", "till", order_id="O-1", total=gbp("9.00")))
        await upstream.record(reported_action("law", "9.00", reason="x", basis="entitlement", order_id="O-1"))
        await wait_until_spent(upstream, "260.00")
    async with upstream_of(session) as upstream:
        await asyncio.sleep(0.4)
        assert await upstream.budget() == amounts("200.00", "260.00", "0.00", "-60.00")
        charges = await upstream.recorded("action.charged")
        assert len(charges) == len({charge["relates_to"] for charge in charges}) == 6
        assert sum(float(charge["overdrawn"]["amount"]) for charge in charges) == 60.0
        assert (await upstream.action("r-1", "1.00"))["outcome"] == "escalate"


async def test_an_overdrawn_budget_closes_with_its_overdraft_and_carries_nothing_over(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        await set_up_organisation(upstream)
        await upstream.action("r-0", "10.00", time="2026-03-02T12:00:00Z")
        fact = reported_action("off", "250.00", reason="storm", time="2026-03-03T10:00:00Z")
        await upstream.record(fact)
        await asyncio.sleep(0.4)
        answer = await upstream.action("r-1", "10.00", time="2026-04-02T12:00:00Z")
        assert answer["budget"]["granted"] == gbp("200.00")
        closed = next(e["data"] for e in await upstream.replay() if e["type"] == "resolution.budget.closed.v1")
        assert (closed["overdrawn"], closed["lapsed"], closed["carried_over"]) == (
            gbp("60.00"),
            gbp("0.00"),
            gbp("0.00"),
        )


@pytest.mark.parametrize("kind", ["day", "week", "quarter"])
async def test_a_new_period_length_begins_with_the_next_opening(session: Session, kind: str) -> None:
    async with upstream_of(session, history=True) as upstream:
        await set_up_organisation(upstream)
        first = await upstream.action("r-1", time="2026-03-17T12:00:00Z")
        await upstream.ask("policy", request_id="p-2", policy=FULL_POLICY | {"period": kind}, published_by="owner")
        same = await upstream.action("r-2", time="2026-03-18T12:00:00Z")
        assert first["budget"]["period"] == same["budget"]["period"] == "2026-03"
        after = await upstream.action("r-3", time="2026-04-01T12:00:00Z")
        assert after["budget"]["period"] == {"day": "2026-04-01", "week": "2026-W14", "quarter": "2026-Q2"}[kind]
        early = await upstream.action("r-4", time="2026-03-01T12:00:00Z")
        assert early["error"]["code"] == "clock"


async def test_actions_reported_of_past_months_are_charged_to_the_present_budget(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    before = await upstream.budget()
    await upstream.action("r-0", "5.00")
    for number, month in enumerate((2, 9, 4, 7, 1), 1):
        fact = reported_action(f"off-{number}", "10.00", time=f"2026-{month:02}-10T10:00:00Z")
        await upstream.record(fact)
    await wait_until_spent(upstream, "55.00")
    assert await upstream.budget() == before | {"spent": "55.00", "remaining": "145.00"}
    types = [one["type"] for one in await upstream.replay()]
    assert "resolution.budget.closed.v1" not in types
    assert types.count("resolution.budget.opened.v1") == 1
