"""Governance: who may change policies, grant, transfer and review, and to whose benefit."""

from typing import Any

import pytest

from tests.support.decision_commands import approve_policy, grant, object_to_policy, propose, publish, review, transfer
from tests.support.decision_company import company, policy
from tests.support.decision_events import (
    Described,
    flag_raised,
    flag_reviewed,
    granted,
    grantor_charged,
    joined,
    left,
    linked,
    opened,
    policy_approved,
    policy_objected,
    policy_proposed,
    published,
    related,
    sha256_of,
    taken,
)
from tests.support.decision_scenarios import given, rule
from tests.support.documents import Document

GOVERNANCE: Document = {
    "policies": {"propose": ["role:head"], "approvals": 1},
    "grants": {"manager": {"per_period": "100.00", "to": "own_teams"}, "head": {"per_period": "900.00", "to": "all"}},
    "transfers": {"manager": "own_teams"},
    "reviews": ["role:auditor"],
}
HEADS = (joined("H-1", "head"), joined("H-2", "head"), joined("U-1", "auditor"))
"""Two heads and an auditor; their roles do not stand under `roles`."""
NEW = policy(agent={"budget": "300.00"}, effective_from="2026-04-01T00:00:00Z")
SHA = sha256_of(NEW)


def governed(**changes: Any) -> tuple[Described, ...]:
    """Return the company under a policy with governance; ``changes`` replace its parts."""
    return *company(governance=GOVERNANCE | changes), *HEADS


PROPOSED = policy_proposed(NEW, signed_in=True, missing=1, at="2026-03-10T08:00:00Z")


# ---------------------------------------------------------------------- proposals


@rule("a person with the right proposes a policy")
def test_a_head_proposes_a_policy() -> None:
    given(governed()).when(propose(NEW), via="http").then(
        policy_proposed(NEW, signed_in=True, missing=1, sha256=SHA),
        answer={"outcome": "done", "status": "proposed", "sha256": SHA, "replaces": 1, "missing": 1},
    )


@pytest.mark.parametrize("person", ["A-7", "M-1", "U-1", "nobody", "X-1"])
def test_others_do_not_propose(person: str) -> None:
    given(governed()).when(propose(NEW, proposed_by=person), via="http").refused_with("not_governor", "proposed_by")


def test_a_head_who_has_left_does_not_propose() -> None:
    given(governed(), left("H-1")).when(propose(NEW), via="http").refused_with("not_governor", "proposed_by")


def test_an_ai_agent_does_not_propose() -> None:
    machine = joined("H-9", "head", kind="ai", accountable_id="H-1")
    given(governed(), machine).when(propose(NEW, proposed_by="H-9"), via="http").refused_with(
        "not_governor", "proposed_by"
    )


def test_a_person_with_only_the_default_role_does_not_propose() -> None:
    described = company(governance=GOVERNANCE | {"policies": {"propose": ["role:agent"]}}, default_role="agent")
    given(described).when(propose(NEW, proposed_by="A-99"), via="http").refused_with("not_governor", "proposed_by")


def test_a_person_may_be_named_by_id() -> None:
    described = governed(policies={"propose": ["agent:A-7"]})
    given(described).when(propose(NEW, proposed_by="A-7"), via="http").then(
        policy_proposed(NEW, proposed_by="A-7", signed_in=True, missing=1, sha256=SHA)
    )


@rule("a proposal of a source needs one approval more, because the source only asserts its proposer")
def test_a_proposal_of_a_source_needs_one_approval_more() -> None:
    given(governed()).when(propose(NEW)).then(policy_proposed(NEW, missing=2, sha256=SHA), answer={"missing": 2})


def test_a_proposal_names_the_newest_version() -> None:
    given(governed()).when(propose(NEW, replaces=0), via="http").refused_with("outdated", "replaces")


@rule("a policy begins no earlier than its approval")
def test_a_proposal_that_begins_in_the_past_is_refused() -> None:
    document = policy(effective_from="2026-03-10T08:59:59Z")
    given(governed()).when(propose(document), via="http").refused_with("invalid", "policy.effective_from")


def test_a_proposal_begins_after_its_time_for_objections() -> None:
    described = governed(policies={"propose": ["role:head"], "after_hours": 24})
    document = policy(effective_from="2026-03-11T08:59:59Z")
    given(described).when(propose(document), via="http").refused_with("invalid", "policy.effective_from")


def test_in_history_mode_a_proposal_may_lie_in_the_past() -> None:
    document = policy(effective_from="2026-02-01T00:00:00Z")
    found = given(governed()).when(propose(document), via="http", history=True)
    assert found.answer["status"] == "proposed"


def test_a_policy_that_waits_is_not_proposed_twice() -> None:
    given(governed(), PROPOSED).when(propose(NEW), via="http").refused_with("already_proposed", "policy")


def test_without_governance_nobody_proposes() -> None:
    given(company()).when(propose(NEW), via="cli").refused_with("not_governor", "operation")


def test_an_invalid_policy_is_not_proposed() -> None:
    given(governed()).when(propose(policy(period="year")), via="http").refused_with("invalid", "policy.period")


# ---------------------------------------------------------------------- approvals


@rule("the last approval publishes the policy in the same step")
def test_the_approval_of_a_second_head_publishes() -> None:
    given(governed(), PROPOSED).when(approve_policy(SHA), via="http").then(
        policy_approved(SHA, missing=0, version=2),
        published(NEW, 2, sha256=SHA, published_by="H-1", approved_by=("H-2",)),
        answer={"outcome": "done", "status": "published", "policy_version": 2},
    )


@rule("a proposer does not approve their own proposal")
def test_the_proposer_does_not_approve() -> None:
    given(governed(), PROPOSED).when(approve_policy(SHA, approved_by="H-1"), via="http").refused_with(
        "not_governor", "approved_by"
    )


def test_the_household_of_the_proposer_does_not_approve() -> None:
    given(governed(), linked("H-1", "H-2"), PROPOSED).when(approve_policy(SHA), via="http").refused_with(
        "not_governor", "approved_by"
    )


@rule("an approval counts only from a signed-in person")
def test_a_source_does_not_approve() -> None:
    given(governed(), PROPOSED).when(approve_policy(SHA)).refused_with("not_governor", "approved_by")


@pytest.mark.parametrize("via", ["cli", "http-operator"])
def test_an_operator_does_not_approve_in_a_name(via: str) -> None:
    given(governed(), PROPOSED).when(approve_policy(SHA), via=via).refused_with("not_governor", "approved_by")


@pytest.mark.parametrize("person", ["A-7", "M-1", "U-1", "nobody"])
def test_others_do_not_approve(person: str) -> None:
    given(governed(), PROPOSED).when(approve_policy(SHA, approved_by=person), via="http").refused_with(
        "not_governor", "approved_by"
    )


def test_two_approvals_are_by_two_people() -> None:
    waits = (*governed(), joined("H-3", "head"), policy_proposed(NEW, missing=2, at="2026-03-10T08:00:00Z"))
    once = policy_approved(SHA, missing=1, at="2026-03-10T08:30:00Z")
    given(waits).when(approve_policy(SHA), via="http").then(
        policy_approved(SHA, missing=1), answer={"status": "approved", "missing": 1}
    )
    given(waits, once).when(approve_policy(SHA), via="http").refused_with("already_decided", "approved_by")
    given(waits, once).when(approve_policy(SHA, approved_by="H-3"), via="http").then(
        policy_approved(SHA, approved_by="H-3", missing=0, version=2),
        published(NEW, 2, sha256=SHA, published_by="H-1", approved_by=("H-2", "H-3")),
    )


def test_an_approval_after_the_beginning_is_refused() -> None:
    given(governed(), PROPOSED).when(approve_policy(SHA), via="http", at="2026-04-01T00:00:01Z").refused_with(
        "invalid", "policy.effective_from"
    )


@rule("a proposal lapses once another policy is published")
def test_a_proposal_lapses_once_another_policy_is_published() -> None:
    other = published(policy(governance=GOVERNANCE, effective_from="2026-03-10T08:30:00Z"), 2)
    given(governed(), PROPOSED, other).when(approve_policy(SHA), via="http").refused_with("outdated", "sha256")


def test_an_unknown_proposal_is_not_approved() -> None:
    given(governed()).when(approve_policy(SHA), via="http").refused_with("unknown_proposal", "sha256")


def test_the_governance_in_force_decides_about_its_own_change() -> None:
    document = policy(effective_from="2026-04-01T00:00:00Z", governance={"policies": {"propose": ["role:agent"]}})
    given(governed()).when(propose(document, proposed_by="A-7"), via="http").refused_with("not_governor", "proposed_by")


# ---------------------------------------------------------------------- objections


@rule("an objection stops a proposal")
def test_a_reviewer_objects() -> None:
    given(governed(), PROPOSED).when(object_to_policy(SHA), via="http").then(
        policy_objected(SHA), answer={"outcome": "done", "status": "objected"}
    )


def test_a_proposal_with_an_objection_is_not_approved() -> None:
    given(governed(), PROPOSED, policy_objected(SHA)).when(approve_policy(SHA), via="http").refused_with(
        "already_decided", "sha256"
    )


@pytest.mark.parametrize("person", ["A-7", "M-1", "nobody"])
def test_others_do_not_object(person: str) -> None:
    given(governed(), PROPOSED).when(object_to_policy(SHA, objected_by=person), via="http").refused_with(
        "not_governor", "objected_by"
    )


def test_a_policy_may_be_proposed_again_after_an_objection() -> None:
    found = given(governed(), PROPOSED, policy_objected(SHA)).when(propose(NEW), via="http")
    assert found.answer["status"] == "proposed"


SLOW: Document = {"policies": {"propose": ["role:head"], "after_hours": 24}}
WAITS = policy_proposed(NEW, signed_in=True, missing=0, due="2026-03-11T08:00:00Z", at="2026-03-10T08:00:00Z")


@rule("without approvals a proposal is published after its time for objections")
def test_a_proposal_is_published_after_its_time_for_objections() -> None:
    scenario = given(governed(**SLOW), WAITS)
    scenario.when_time_passes("2026-03-11T07:59:59Z").then()
    scenario.when_time_passes("2026-03-11T08:00:00Z").then(published(NEW, 2, sha256=SHA, published_by="H-1"))


def test_a_proposal_with_an_objection_is_never_published() -> None:
    given(governed(**SLOW), WAITS, policy_objected(SHA)).when_time_passes("2026-04-11T08:00:00Z").then()


def test_a_proposal_that_lapsed_is_never_published() -> None:
    other = published(policy(governance=GOVERNANCE | SLOW, effective_from="2026-03-10T08:30:00Z"), 2)
    given(governed(**SLOW), WAITS, other).when_time_passes("2026-04-11T08:00:00Z").then()


def test_an_approved_proposal_waits_for_the_end_of_its_time() -> None:
    both = governed(policies={"propose": ["role:head"], "approvals": 1, "after_hours": 24})
    waits = policy_proposed(NEW, signed_in=True, missing=1, due="2026-03-11T08:00:00Z", at="2026-03-10T08:00:00Z")
    given(both, waits).when_time_passes("2026-03-12T08:00:00Z").then()
    given(both, waits).when(approve_policy(SHA), via="http").then(
        policy_approved(SHA, missing=0), answer={"status": "approved", "missing": 0}
    )
    given(both, waits, policy_approved(SHA, missing=0)).when_time_passes("2026-03-11T08:00:00Z").then(
        published(NEW, 2, sha256=SHA, published_by="H-1", approved_by=("H-2",))
    )


# ---------------------------------------------------------------------- publication


@rule("where policies are governed, a policy is proposed first")
def test_nobody_publishes_past_a_proposal() -> None:
    given(governed()).when(publish(NEW)).refused_with("not_governor", "published_by")


@pytest.mark.parametrize("via", ["http", "cli", "http-operator"])
def test_an_operator_does_not_publish_past_a_proposal(via: str | None) -> None:
    given(governed()).when(publish(NEW), via=via).refused_with("not_governor", "published_by")


@rule("an operator breaks the glass with a reason, and the event says so")
def test_an_operator_breaks_the_glass() -> None:
    given(governed()).when(publish(NEW, break_glass=True, reason="fraud"), via="cli").then(
        published(NEW, 2, sha256=SHA, break_glass=True, reason="fraud"), answer={"policy_version": 2}
    )


@pytest.mark.parametrize("via", [None, "http"])
def test_others_do_not_break_the_glass(via: str | None) -> None:
    given(governed()).when(publish(NEW, break_glass=True, reason="x"), via=via).refused_with(
        "not_governor", "break_glass"
    )


def test_the_glass_is_broken_with_a_reason() -> None:
    given(governed()).when(publish(NEW, break_glass=True), via="cli").refused_with("invalid", "reason")


def test_a_broken_glass_changes_no_past() -> None:
    document = policy(effective_from="2026-03-09T00:00:00Z")
    given(governed()).when(publish(document, break_glass=True, reason="x"), via="cli").refused_with(
        "invalid", "policy.effective_from"
    )


def test_without_governance_there_is_no_glass_to_break() -> None:
    given(company()).when(publish(NEW, break_glass=True, reason="x"), via="cli").refused_with("invalid", "break_glass")


def test_governance_without_policies_leaves_them_to_operators() -> None:
    described = *company(governance={"reviews": ["role:auditor"]}), *HEADS
    given(described).when(publish(NEW), via="cli").then(published(NEW, 2, sha256=SHA))


# ---------------------------------------------------------------------- grants


@rule("a person grants within the amount a period of their role, which is counted on their own budget")
def test_a_manager_grants_within_the_amount_a_period() -> None:
    before = opened("agent:A-7", "200.00"), opened("agent:M-1", "2000.00")
    given(governed(), before).when(grant("agent:A-7", "60.00"), via="http").then(
        granted("agent:A-7", "60.00", request_id="g-1"),
        grantor_charged("M-1", "60.00", "agent:A-7", limit="100.00", used="0.00"),
        answer={"outcome": "done"},
    )
    given(governed(), before, grantor_charged("M-1", "60.00", "agent:A-8", limit="100.00", used="0.00")).when(
        grant("agent:A-7", "40.01"), via="http"
    ).refused_with("insufficient", "amount.amount")


def test_a_grant_of_a_source_is_bounded_too() -> None:
    given(governed()).when(grant("agent:A-7", "100.01")).refused_with("insufficient", "amount.amount")


def test_the_amount_a_period_begins_anew() -> None:
    before = grantor_charged("M-1", "100.00", "agent:A-7", limit="100.00", used="0.00", at="2026-02-10T09:00:00Z")
    found = given(governed(), before).when(grant("agent:A-7", "100.00"), via="http")
    assert found.answer["outcome"] == "done"


def test_another_currency_opens_no_second_amount_a_period() -> None:
    before = grantor_charged("M-1", "100.00", "agent:A-7", limit="100.00", used="0.00")
    euros = published(policy(currency="EUR", governance=GOVERNANCE), 2)
    given(governed(), before, euros).when(grant("agent:A-7", "1.00 EUR"), via="http").refused_with(
        "insufficient", "amount.currency"
    )


def test_an_operator_grants_without_bounds() -> None:
    found = given(governed()).when(grant("agent:A-7", "5000.00", granted_by="dana"), via="cli")
    assert [type(event).__name__ for event in found.events] == ["BudgetOpened", "BudgetGranted"]


@pytest.mark.parametrize("person", ["A-8", "X-1", "U-1", "nobody"])
def test_others_do_not_grant(person: str) -> None:
    given(governed()).when(grant("agent:A-7", "1.00", granted_by=person), via="http").refused_with(
        "not_governor", "granted_by"
    )


@rule("people do not grant to themselves, their household or a declared relation")
def test_nobody_grants_to_themselves() -> None:
    given(governed()).when(grant("agent:M-1", "1.00")).refused_with("not_governor", "granted_by")


@pytest.mark.parametrize("via", ["http", "cli"])
def test_nobody_grants_to_themselves_by_another_way(via: str | None) -> None:
    given(governed()).when(grant("agent:M-1", "1.00"), via=via).refused_with("not_governor", "granted_by")


@pytest.mark.parametrize("tie", [linked("M-1", "A-7"), related("M-1", "A-7"), related("A-7", "M-1")])
def test_nobody_grants_to_their_household(tie: Described) -> None:
    given(governed(), tie).when(grant("agent:A-7", "1.00"), via="http").refused_with("not_governor", "granted_by")


def test_a_manager_grants_to_own_teams_alone() -> None:
    elsewhere = joined("E-1", "agent", "stores", manager_id="X-1")
    given(governed(), elsewhere).when(grant("agent:E-1", "1.00"), via="http").refused_with("not_governor", "holder")
    given(governed(), elsewhere).when(grant("team:stores", "1.00"), via="http").refused_with("not_governor", "holder")
    below = given(governed()).when(grant("agent:D-1", "1.00"), via="http")
    assert below.answer["outcome"] == "done"


def test_nobody_grants_in_return() -> None:
    described = governed(grants={"manager": {"per_period": "100.00", "to": "all"}})
    before = granted("agent:M-1", "50.00", granted_by="M-2")
    given(described, before).when(grant("agent:M-2", "50.00"), via="http").refused_with("not_governor", "granted_by")


# ---------------------------------------------------------------------- transfers


def test_a_manager_transfers_within_own_teams() -> None:
    found = given(governed()).when(transfer("agent:A-7", "agent:A-8", "5.00"), via="http")
    assert found.answer["outcome"] == "done"


@pytest.mark.parametrize("person", ["A-8", "H-1", "nobody"])
def test_others_do_not_transfer(person: str) -> None:
    given(governed()).when(transfer("agent:A-7", "agent:D-1", "5.00", granted_by=person), via="http").refused_with(
        "not_governor", "granted_by"
    )


def test_nobody_transfers_to_themselves() -> None:
    given(governed()).when(transfer("agent:A-7", "agent:M-1", "5.00"), via="http").refused_with(
        "not_governor", "granted_by"
    )


@pytest.mark.parametrize(("giver", "taker", "field"), [("E-1", "A-7", "holder"), ("A-7", "E-1", "to_holder")])
def test_a_transfer_stays_within_own_teams(giver: str, taker: str, field: str) -> None:
    elsewhere = joined("E-1", "agent", "stores", manager_id="X-1")
    command = transfer(f"agent:{giver}", f"agent:{taker}", "5.00")
    given(governed(), elsewhere).when(command, via="http").refused_with("not_governor", field)


# ---------------------------------------------------------------------- reviews


REVIEW: Document = {"verdict": "dismissed", "reviewed_by": "U-1"}


@rule("a flag is reviewed by people with the right")
def test_an_auditor_reviews() -> None:
    given(governed(), flag_raised()).when(review(**REVIEW), via="http").then(
        flag_reviewed("dismissed", reviewed_by="U-1"), answer={"outcome": "done"}
    )


@pytest.mark.parametrize("person", ["M-1", "H-1", "nobody"])
@pytest.mark.parametrize("field", ["reviewed_by", "unmasked_by"])
def test_others_do_not_review(person: str, field: str) -> None:
    fields = {"reviewed_by": person, "verdict": "dismissed"} if field == "reviewed_by" else {"unmasked_by": person}
    given(governed(), flag_raised()).when(review(**fields), via="http").refused_with("not_governor", field)


@rule("people do not review a flag about themselves, their household, or an approval or grant of their own")
def test_nobody_reviews_a_flag_about_themselves() -> None:
    command = review(verdict="dismissed", reviewed_by="A-7")
    given(company(), flag_raised()).when(command).refused_with("not_governor", "reviewed_by")


@pytest.mark.parametrize("described", [company(), governed(reviews=["role:agent"])])
@pytest.mark.parametrize("via", [None, "http", "cli"])
def test_no_governance_lets_a_person_review_a_flag_about_themselves(
    described: tuple[Described, ...], via: str | None
) -> None:
    command = review(verdict="dismissed", reviewed_by="A-7")
    given(described, flag_raised()).when(command, via=via).refused_with("not_governor", "reviewed_by")


def test_nobody_reviews_a_flag_about_their_household() -> None:
    given(governed(), linked("U-1", "A-7"), flag_raised()).when(review(**REVIEW), via="http").refused_with(
        "not_governor", "reviewed_by"
    )


def test_nobody_reviews_a_flag_about_an_approval_that_they_gave() -> None:
    before = (*company(), taken("90.00", decided_by="M-1", authority="approved"))
    scenario = given(before)
    position = scenario.position
    scenario.add(flag_raised(evidence=(position,)))
    scenario.when(review(verdict="dismissed", reviewed_by="M-1")).refused_with("not_governor", "reviewed_by")
    scenario.when(review(verdict="dismissed", reviewed_by="M-2")).then(flag_reviewed("dismissed", reviewed_by="M-2"))
