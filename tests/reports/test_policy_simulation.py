"""Simulations of another policy on a ledger's history: differing decisions, and nothing recorded."""

import json
import subprocess
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.runtime.views import read_view
from domain.policy.parsing import parse_policy
from ledger.store.subscription import Follower
from projections.policy_history import published_policies
from projections.reports.policy_simulation import PolicySimulation, WhatIfReport, try_policy, try_quickly
from tests.support.builders import event, gbp, reported_action
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation
from tests.support.waiting import eventually


def changed(role: str = "agent", **changes: Any) -> Document:
    roles = FULL_POLICY["roles"]
    return FULL_POLICY | {"roles": roles | {role: roles[role] | changes}}


async def tried(
    upstream: Upstream, document: Document | None, *, flags: bool = False, since: str | None = None
) -> WhatIfReport:
    session = upstream.session
    policy = parse_policy(document) if document is not None else None
    begins = datetime.fromisoformat(since) if since else None
    trying = PolicySimulation(policy, await published_policies(session.log), begins, flags=flags)
    end = await session.log.last_position()
    batches = Follower(await session.connection("what-if"), session.log, "what-if").batches(until=end)
    found = await try_policy(session.log, batches, trying, lambda _: None)
    if policy is not None and not flags:
        again = PolicySimulation(policy, await published_policies(session.log), begins, flags=False)
        assert await try_quickly(partial(read_view, session), again, lambda _: None) == found
    assert await session.log.last_position() == end
    return found


def changes(found: WhatIfReport) -> dict[tuple[str, str, str], int]:
    return {
        (one["kind"], one["then"], one["would_be"]): one["n"]
        for one in found["changes"]
        if one["then"] != one["would_be"]
    }


async def test_a_higher_limit_saves_escalations_and_lists_the_additional_actions(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    for number, (amount, verdict) in enumerate((("70.00", "approve"), ("75.00", "deny"), ("80.00", None))):
        asked = await upstream.action(f"r-{number}", amount, agent_id="A-1", escalate=verdict is not None)
        if verdict is not None:
            decision = {"escalation_id": asked["escalation_id"], "decided_by": "M-1", "operation": verdict}
            assert (await upstream.ask("escalation", request_id=f"d-{number}", **decision))["outcome"] in {
                "taken",
                "done",
            }
    assert (await upstream.action("r-9", "50.00", agent_id="A-1"))["outcome"] == "taken"
    found = await tried(upstream, changed(limits={"refund": "80.00"}, budget="300.00"))
    assert changes(found) == {("refund", "escalate", "taken"): 3}
    saved = found["escalations_saved"]
    assert (saved["given_at_once"], saved["n"]) == (3, 2)
    assert {one["outcome"]: (one["n"], one["amount"]) for one in saved["outcomes"]} == {
        "approved": (1, gbp("70.00")),
        "denied": (1, gbp("75.00")),
        "not asked": (1, gbp("80.00")),
    }
    assert saved["hours_not_waited"] > 0
    (period,) = found["spend"]
    assert (period["spent"], period["would_be_spent"]) == (gbp("120.00"), gbp("275.00"))
    assert [one["escalation_id"] is not None for one in found["items"]] == [True, True, False]
    assert (await tried(upstream, FULL_POLICY))["differences"] == 0


async def test_a_refused_approval_is_no_decision_of_the_approver(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    asked = await upstream.action("r-1", "70.00", agent_id="A-1", escalate=True)
    for who, outcome in (("A-2", "refused"), ("A-1", "refused"), ("M-1", "done")):
        decision = {"escalation_id": asked["escalation_id"], "decided_by": who, "operation": "approve"}
        answer = await upstream.ask("escalation", request_id=f"d-{who}", **decision)
        assert answer["outcome"] == outcome, answer
    found = await tried(upstream, FULL_POLICY)
    assert (found["decisions"], found["differences"]) == (1, 0)


async def test_an_action_beyond_the_pool_is_no_filed_escalation(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    answer = await upstream.action("r-1", "600.00", agent_id="D-1", kind="fix", escalate=False)
    assert [one["rule"] for one in answer["reasons"]][-1] == "pool"  # and nobody approves a fix
    assert (await tried(upstream, FULL_POLICY))["items"] == []


async def test_a_lower_limit_adds_escalations_and_leaves_budget_for_later_actions(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    for number in range(4):
        await upstream.action(f"r-{number}", "50.00", agent_id="A-1")
    assert (await upstream.action("r-8", "10.00", agent_id="A-1"))["outcome"] == "escalate"  # 200.00 are spent
    found = await tried(upstream, changed(limits={"refund": "40.00"}))
    assert changes(found) == {("refund", "taken", "escalate"): 4, ("refund", "escalate", "taken"): 1}
    assert found["limits_hit"] == [
        {"rule": "per_action", "then": 0, "would_be": 4},
        {"rule": "budget", "then": 1, "would_be": 0},
    ]
    assert {one["why"] for one in found["items"]} == {("per_action",), ("budget",)}


async def test_a_report_of_a_granted_action_counts_once(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    about = {"agent_id": "A-1", "interaction_id": "I-1"}
    assert (await upstream.action("r-1", "25.00", **about))["outcome"] == "taken"
    await upstream.record(reported_action("r-1", "28.00", **about))
    await eventually(lambda: upstream.recorded("action.charged"), bool)
    await upstream.wait_for_decider()
    for request, amount, outcome in (("r-2", "32.01", "escalate"), ("r-3", "32.00", "taken")):  # 60.00 a conversation
        assert (await upstream.action(request, amount, **about))["outcome"] == outcome
    found = await tried(upstream, FULL_POLICY)
    assert (found["decisions"], found["differences"]) == (3, 0), found["items"]


async def test_grants_holds_and_reversals_count_in_their_own_history(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    grant = {"operation": "grant", "holder": "agent:A-1", "amount": gbp("50.00"), "granted_by": "M-1", "reason": "busy"}
    assert (await upstream.ask("budget", request_id="g-1", **grant))["outcome"] == "done"
    held = await upstream.action("h-1", "50.00", agent_id="A-1", hold=True)
    void = {"action_id": held["action_id"], "operation": "void"}
    assert (await upstream.ask("hold", request_id="v-1", **void))["outcome"] == "done"
    taken = await upstream.action("r-1", "45.00", agent_id="A-1")
    undone = {"action_id": taken["action_id"], "reversed_by": "M-1", "reason": "came back", "recovered": True}
    assert (await upstream.ask("reversal", request_id="u-1", **undone))["outcome"] == "done"
    for number in range(5):
        assert (await upstream.action(f"s-{number}", "50.00", agent_id="A-1"))["outcome"] == "taken"
    assert (await upstream.action("s-9", "0.01", agent_id="A-1"))["outcome"] == "escalate"
    same = await tried(upstream, FULL_POLICY)
    assert (same["decisions"], same["differences"]) == (8, 0)
    assert same["spend"][0]["would_be_spent"] == gbp("250.00")
    without = await tried(upstream, changed(budget="0.00"))
    # A grant of 50.00 is all there is: held and given back, spent and given back, then one of five.
    assert changes(without) == {("refund", "taken", "escalate"): 4}


async def test_customers_and_households_have_totals_in_each_history(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await upstream.record(event("link", "customer.linked", a="C-1", b="C-2", relation="household"))
    for number, customer in enumerate(("C-1", "C-2", "C-1")):
        await upstream.action(f"r-{number}", "40.00", agent_id=f"A-{number % 2 + 1}", customer_id=customer)
    assert (await tried(upstream, FULL_POLICY))["differences"] == 0
    cap = {"amount": "60.00", "days": 30, "hard_above": "60.00"}
    found = await tried(upstream, changed(per_customer=cap))
    assert changes(found) == {("refund", "taken", "escalate"): 1}  # the second; the third asked anyway
    assert [item["why"] for item in found["items"]] == [("per_customer",)]


async def test_the_simulation_starts_from_the_policy_in_force_or_a_time(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await upstream.action("r-1", "50.00", agent_id="A-1")
    stricter = changed(limits={"refund": "45.00"})
    await upstream.ask("policy", request_id="policy-2", policy=stricter, published_by="owner")
    assert (await upstream.action("r-2", "50.00", agent_id="A-1"))["outcome"] == "escalate"
    assert (await tried(upstream, stricter))["differences"] == 0
    whole = await tried(upstream, stricter, since="2020-01-01T00:00:00+00:00", flags=True)
    assert (whole["decisions"], changes(whole)) == (2, {("refund", "taken", "escalate"): 1})
    assert whole["flags"] == {"by_rule": [], "new": 0, "gone": 0}
    euros = changed() | {"currency": "EUR"}
    assert changes(await tried(upstream, euros)) == {("refund", "escalate", "refused"): 1}


async def test_the_simulation_lists_the_flags_of_the_other_policy(upstream: Upstream) -> None:
    """Asked for 70.00, told to ask, given 40.00 and 30.00: R2 sees it only where 70.00 are too much."""
    await set_up_organisation(upstream)
    for number, amount in enumerate(("70.00", "40.00", "30.00")):
        await upstream.action(f"r-{number}", amount, agent_id="A-1", order_id="O-1")
    found = await tried(upstream, changed(limits={"refund": "80.00"}), flags=True)
    assert found["flags"] is not None
    assert found["flags"]["by_rule"] == [{"rule": "R2", "raised": 1, "would_be_raised": 0}]
    assert (found["flags"]["new"], found["flags"]["gone"]) == (0, 1)


async def test_a_shadow_policys_record_is_read_the_same_way(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    with pytest.raises(LookupError):
        await tried(upstream, None)
    shadow = changed(limits={"refund": "45.00"}) | {"mode": "shadow"}
    await upstream.ask("policy", request_id="policy-2", policy=shadow, published_by="owner")
    await upstream.action("r-1", "40.00", agent_id="A-1")
    await upstream.action("r-2", "50.00", agent_id="A-1")
    found = await tried(upstream, None)
    assert (found["policy_version"], found["decisions"]) == (2, 2)
    assert changes(found) == {("refund", "taken", "escalate"): 1}
    assert found["spend"][0]["would_be_spent"] == gbp("40.00")


def test_the_command(command: CommandLine, tmp_path: Path) -> None:
    def printed(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = command(*words)
        assert done.returncode == status, done.stderr + done.stdout
        return done

    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump(FULL_POLICY | {"roles": FULL_POLICY["roles"]}))
    joined = event("j", "employee.joined", employee_id="A-1", role="agent", team_ids=["phone"])
    facts = tmp_path / "facts.ndjson"
    facts.write_text(json.dumps(joined))
    printed("publish", str(facts), "--json")
    assert "no policy is in force" in printed("report", "what-if", "in-force", status=2).stderr
    printed("decide", "policy", str(policy), "--published-by", "owner", "--json")
    asked = ("decide", "action", "--agent", "A-1", "--kind", "refund", "--reason", "late", "--amount")
    printed(*asked, "50.00", "--json")
    policy.write_text(yaml.safe_dump(changed(limits={"refund": "45.00"})))
    found = json.loads(printed("report", "what-if", str(policy), "--json").stdout)
    assert changes(found) == {("refund", "taken", "escalate"): 1}
    text = printed("report", "what-if", str(policy), "--flags").stdout
    assert "1 would have been different" in " ".join(text.split())
    for words, said in (
        (("x.yaml",), "no such file"),
        ((), "name a POLICY"),
        (("--shadow",), "mode: shadow"),
        (("in-force", "--since", "soon"), "--since"),
    ):
        assert said in printed("report", "what-if", *words, status=2).stderr
