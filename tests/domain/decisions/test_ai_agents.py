"""AI agents act within roles of their own, a person answers for each, and people decide what goes beyond."""

import pytest

from domain.policy.parsing import PolicyError, parse_policy
from tests.support.decision_commands import action, approve, ask, deny, forward, preview, withdraw
from tests.support.decision_company import STAFF, policy
from tests.support.decision_events import (
    ANY,
    Described,
    approved,
    delegated,
    fell_short,
    joined,
    left,
    moved,
    opened,
    published,
    requested,
    taken,
    why,
    withdrawn,
)
from tests.support.decision_scenarios import given, rule
from tests.support.documents import Document

BOT: Document = {"kind": "ai", "budget": "100.00", "limits": {"refund": "20.00"}}
POLICY = policy() | {"roles": policy()["roles"] | {"bot": BOT}}
COMPANY = (
    published(POLICY),
    *STAFF,
    joined("AI-1", "bot", "phone", kind="ai", accountable_id="A-8", manager_id="M-2"),
)
"""The company with one AI agent. A-8 answers for it and may not approve; the manager of A-8 is M-1, who may."""
OPENED = opened("agent:AI-1", "100.00")
ASKED = requested("90.00", "AI-1", role="bot", customer_id="C-9", to=("A-8", "M-1"), agent_kind="ai")


@rule("an AI agent acts within a role with `kind: ai`, and its records and answers say so")
def test_the_action_of_an_ai_agent_says_so() -> None:
    given(COMPANY).when(action("5.00", "AI-1")).then(
        OPENED,
        taken("5.00", "AI-1", authority="own", limits=ANY, team_id="phone", manager_id="M-2", agent_kind="ai"),
        answer={"outcome": "taken", "agent_kind": "ai"},
    )


def test_the_answer_to_a_person_has_no_kind() -> None:
    assert "agent_kind" not in given(COMPANY).when(action("5.00")).answer


@pytest.mark.parametrize(("role", "kind"), [("agent", "ai"), ("bot", "human")])
def test_an_agent_does_not_act_in_a_role_of_the_other_kind(role: str, kind: str) -> None:
    agent = joined("N-1", role, kind=kind, accountable_id="A-8")
    found = given(COMPANY, agent).when(action("5.00", "N-1"))
    assert (found.answer["outcome"], found.answer["reasons"][0].rule) == ("refused", "agent_kind")


@rule("an AI agent does not act in a role of people")
def test_an_ai_agent_does_not_act_in_a_role_of_people() -> None:
    agent = joined("AI-2", "agent", kind="ai", accountable_id="A-8")
    given(COMPANY, agent).when(action("5.00", "AI-2")).then(
        opened("agent:AI-2", "200.00"),
        fell_short("5.00", "refused", why("agent_kind"), agent_id="AI-2", agent_kind="ai"),
    )


@rule("an AI agent for which no person at work answers is refused")
def test_an_ai_agent_whose_person_has_left_is_refused() -> None:
    given(COMPANY, left("A-8")).when(action("5.00", "AI-1")).then(
        OPENED, fell_short("5.00", "refused", why("accountable"), agent_id="AI-1", agent_kind="ai")
    )


@pytest.mark.parametrize(
    "events",
    [
        (joined("N-1", "bot", kind="ai"),),
        (joined("N-1", "bot", kind="ai", accountable_id="unknown"),),
        (joined("N-1", "bot", kind="ai", accountable_id="AI-1"),),
        (joined("N-1", "bot", kind="ai", accountable_id="N-1"),),
    ],
    ids=["none", "unknown", "an AI", "itself"],
)
def test_an_ai_agent_without_a_person_who_answers_for_it_is_refused(events: tuple[Described, ...]) -> None:
    found = given(COMPANY, *events).when(action("5.00", "N-1"))
    assert (found.answer["outcome"], found.answer["reasons"][0].rule) == ("refused", "accountable")


def test_a_basis_other_than_goodwill_needs_a_person_too() -> None:
    found = given(COMPANY, left("A-8")).when(action("5.00", "AI-1", basis="correction"))
    assert (found.answer["outcome"], found.answer["reasons"][0].rule) == ("refused", "accountable")


@pytest.mark.parametrize("amount", ["5.00", None])
def test_a_preview_of_an_ai_agent_says_so(amount: str | None) -> None:
    assert given(COMPANY).when(preview(amount, "AI-1")).answer["agent_kind"] == "ai"


def test_a_change_without_a_kind_keeps_the_kind_and_the_person_who_answers() -> None:
    change = moved("AI-1", "bot", "doorstep")
    assert given(COMPANY, change).when(action("5.00", "AI-1")).answer["outcome"] == "taken"


@rule("the escalation of an AI agent goes to the person who answers for it first")
def test_the_escalation_of_an_ai_agent_goes_to_the_person_who_answers_for_it_first() -> None:
    given(COMPANY).when(ask("90.00", "AI-1")).then(
        OPENED,
        requested("90.00", "AI-1", reasons=ANY, payer="approver", to=("A-8", "M-1"), due=ANY),
        answer={"to": ["A-8", "M-1"], "agent_kind": "ai"},
    )


def test_a_person_who_answers_for_an_ai_agent_and_may_approve_is_asked_alone() -> None:
    agent = joined("N-1", "bot", kind="ai", accountable_id="M-2")
    assert given(COMPANY, agent).when(ask("90.00", "N-1")).answer["to"] == ["M-2"]


@rule("an AI agent decides no escalation")
def test_an_ai_agent_approves_no_escalation() -> None:
    given(COMPANY, joined("AI-2", "manager", kind="ai", accountable_id="M-1"), ASKED).when(
        approve("esc-1", "AI-2")
    ).then(
        fell_short(
            "90.00",
            "refused",
            why("agent_kind"),
            agent_id="AI-2",
            role="manager",
            holder="agent:AI-1",
            escalation_id="esc-1",
            reason=ANY,
        )
    )


def test_an_ai_agent_denies_and_forwards_no_escalation() -> None:
    machine = joined("AI-2", "manager", kind="ai", accountable_id="M-1")
    for decide in (deny, forward):
        found = given(COMPANY, machine, ASKED).when(decide("esc-1", "AI-2"))
        assert (found.answer["outcome"], found.answer["reasons"][0].rule) == ("refused", "agent_kind")


def test_an_ai_agent_does_not_decide_for_an_absent_person() -> None:
    machine = joined("AI-2", "bot", kind="ai", accountable_id="M-1"), delegated("M-1", "AI-2")
    found = given(COMPANY, *machine, ASKED).when(approve("esc-1", "AI-2"))
    assert (found.answer["outcome"], found.answer["reasons"][0].rule) == ("refused", "agent_kind")


def test_an_ai_agent_is_not_asked() -> None:
    machine = joined("AI-2", "manager", kind="ai", accountable_id="M-1"), moved("A-7", "agent", manager_id="AI-2")
    assert given(COMPANY, *machine).when(ask("90.00")).answer["to"] == ["M-1", "M-2", "X-1"]


def test_an_escalation_is_not_forwarded_to_an_ai_agent() -> None:
    given(COMPANY, ASKED).when(forward("esc-1", "M-1", "AI-1")).refused_with("invalid", "to")


def test_the_person_who_answers_for_an_ai_agent_may_deny_or_pass_on_without_the_right_to_approve() -> None:
    for decide in (deny, forward):
        assert given(COMPANY, ASKED).when(decide("esc-1", "A-8")).answer["outcome"] == "done"


def test_an_approved_action_of_an_ai_agent_says_so() -> None:
    given(COMPANY, ASKED).when(approve("esc-1", "M-1")).then(
        approved("90.00", paid_by="agent:M-1"),
        opened("agent:M-1", "2000.00"),
        taken("90.00", "AI-1", role="bot", holder="agent:M-1", escalation_id="esc-1", limits=ANY, agent_kind="ai"),
    )


def test_no_person_approves_for_an_ai_agent_for_which_no_person_answers() -> None:
    found = given(COMPANY, ASKED, left("A-8")).when(approve("esc-1", "M-1"))
    assert (found.answer["outcome"], found.answer["reasons"][0].rule) == ("refused", "accountable")


def test_an_ai_agent_may_withdraw_its_own_request() -> None:
    given(COMPANY, ASKED).when(withdraw("esc-1", "AI-1")).then(withdrawn(), answer={"status": "withdrawn"})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"roles": {"bot": BOT | {"approves": {"refund": "5.00"}}}}, "roles.bot.approves"),
        ({"roles": {"bot": BOT | {"kind": "robot"}}}, "roles.bot.kind"),
        ({"default_role": "bot"}, "default_role"),
    ],
)
def test_a_policy_lets_no_ai_agent_approve_and_no_unannounced_agent_be_one(change: Document, field: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(POLICY | change)
    assert [problem.field for problem in refused.value.problems] == [field]
