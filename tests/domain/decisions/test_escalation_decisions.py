"""Escalations are approved, denied, withdrawn, forwarded, or expire."""

import pytest

from domain.decisions.decision import Retry
from domain.decisions.escalations import OverdueEscalation
from domain.serialization import encode
from tests.support.decision_commands import approve, deny, forward, withdraw
from tests.support.decision_company import company
from tests.support.decision_events import (
    ANY,
    Described,
    approved,
    closed,
    customer_charged,
    delegated,
    denied,
    drawn,
    expired,
    fell_short,
    forwarded,
    held,
    instant,
    joined,
    left,
    linked,
    met,
    opened,
    order_charged,
    paid,
    related,
    requested,
    taken,
    voided,
    why,
    withdrawn,
)
from tests.support.decision_scenarios import balance, given, rule

ASKED = requested("90.00", customer_id="C-9", interaction_id="I-1")
"""A-7 asked M-1 a day ago."""
CHARGED = customer_charged("C-9", "90.00", used="0.00")
"""The approved amount, on the stream of a customer whose cap is near."""
M1_OPENED = opened("agent:M-1", "2000.00")
TEAM_PAYS = {"payer": "team", "after_hours": 48, "then": "next_level"}
FROM_POOL = (
    requested("35.00", "D-1", kind="credit", payer="team", holder="team:doorstep", to=("X-1",)),
    held("35.00", "D-1", kind="credit", holder="team:doorstep", escalation_id="esc-1"),
)
"""D-1 asked X-1, and the pool reserves the amount."""


def attempt(by: str, *reasons: object, role: str = "manager", **fields: object) -> Described:
    """Return the record of a decision on A-7's escalation that this person may not make."""
    given_fields = {"amount": "90.00", "holder": "agent:A-7", "escalation_id": "esc-1", "reason": ANY} | fields
    amount = str(given_fields.pop("amount"))
    return fell_short(amount, "refused", agent_id=by, role=role, reasons=reasons, **given_fields)


# ---------------------------------------------------------------------- approve


@rule("an approval takes the action in the same step; without a pool the approver pays")
def test_an_approval_takes_the_action_and_the_approver_pays() -> None:
    given(company(), ASKED).when(approve("esc-1", "M-1", reason="a loyal customer")).then(
        approved("90.00", paid_by="agent:M-1", reason="a loyal customer", waited_seconds=86400.0),
        M1_OPENED,
        taken(
            "90.00",
            holder="agent:M-1",
            escalation_id="esc-1",
            limits=met(approves=("500.00", "0.00"), payer=("2000.00", "0.00")),
        ),
        CHARGED,
        answer={"outcome": "done", "status": "approved", "action_id": "act-01", "paid_by": "agent:M-1"},
    )


def test_the_answer_of_an_approval_has_the_documented_form() -> None:
    found = given(company(), ASKED).when(approve("esc-1", "M-1", "60.00"))
    found.then(
        approved("60.00", paid_by="agent:M-1"),
        M1_OPENED,
        taken("60.00", holder="agent:M-1", escalation_id="esc-1", limits=ANY),
    )
    assert encode(found.answer).decode() == (
        '{"outcome":"done","escalation_id":"esc-1","status":"approved","amount":{"amount":"60.00","currency":"GBP"},'
        '"position":11,"action_id":"act-01","paid_by":"agent:M-1"}'
    )


@rule("an approver may approve less than was asked")
def test_less_than_was_asked_may_be_approved() -> None:
    given(company(), ASKED).when(approve("esc-1", "M-1", "60.00")).then(
        approved("60.00", asked="90.00", paid_by="agent:M-1"),
        M1_OPENED,
        taken("60.00", holder="agent:M-1", escalation_id="esc-1", limits=ANY),
        answer={"amount": {"amount": "60.00", "currency": "GBP"}},
    )


@pytest.mark.parametrize(("amount", "is_charged"), [("80.00", False), ("80.01", True)])
def test_an_approval_near_the_customers_cap_is_recorded_for_the_customer_too(amount: str, is_charged: bool) -> None:
    charge = [customer_charged("C-9", amount, used="0.00")] if is_charged else []
    given(company(), ASKED).when(approve("esc-1", "M-1", amount)).then(
        approved(amount, asked="90.00", paid_by="agent:M-1"),
        M1_OPENED,
        taken(amount, holder="agent:M-1", escalation_id="esc-1", limits=ANY),
        *charge,
    )


def test_an_approval_near_the_cap_reads_what_another_decider_gave_to_the_customer_first() -> None:
    other = (
        taken("60.00", "D-1", customer_id="C-9", action_id="act-d1"),
        customer_charged("C-9", "60.00", used="30.00", action_id="act-d1"),
    )
    opening = taken("0.00", "D-1", action_id="act-d0")
    scenario = given(company(), ASKED, opening).not_read_yet(*other)
    scenario.when(approve("esc-1", "M-1")).retries(Retry.AFTER_CATCH_UP)


def test_more_than_was_asked_is_not_approved() -> None:
    given(company(), ASKED).when(approve("esc-1", "M-1", "90.01")).refused_with("invalid", "amount.amount")


def test_an_escalation_is_approved_in_its_own_currency() -> None:
    given(company(), ASKED).when(approve("esc-1", "M-1", "90.00 EUR")).refused_with("currency", "amount.currency")


def test_any_employee_with_the_right_may_approve() -> None:
    given(company(), ASKED).when(approve("esc-1", "M-2")).then(
        approved("90.00", paid_by="agent:M-2"),
        opened("agent:M-2", "2000.00"),
        taken("90.00", holder="agent:M-2", escalation_id="esc-1", limits=ANY),
        CHARGED,
    )


def test_an_approval_spends_from_the_payer_and_not_from_the_requester() -> None:
    scenario = (
        given(company(), ASKED)
        .when(approve("esc-1", "M-1"))
        .then(
            approved("90.00", paid_by="agent:M-1"),
            M1_OPENED,
            taken("90.00", holder="agent:M-1", escalation_id="esc-1", limits=ANY),
            CHARGED,
        )
    )
    assert scenario.budget("agent:M-1").spent_minor == 9000
    assert scenario.budget("agent:A-7").spent_minor == 0


def test_the_action_of_an_approval_is_beyond_the_agents_own_limits() -> None:
    earlier = taken("60.00", "A-8", action_id="act-08", interaction_id="I-1")
    found = given(company(), earlier, ASKED).when(approve("esc-1", "M-1"))
    assert found.answer["status"] == "approved"


def test_the_action_of_an_approval_copies_the_escalation() -> None:
    asked = requested(
        "90.00", customer_id="C-9", order_id="O-1", note="an old customer", guideline="g-1", team_id="phone"
    )
    given(company(), asked).when(approve("esc-1", "M-1")).then(
        approved("90.00", paid_by="agent:M-1"),
        M1_OPENED,
        taken(
            "90.00",
            holder="agent:M-1",
            escalation_id="esc-1",
            limits=ANY,
            customer_id="C-9",
            order_id="O-1",
            note="an old customer",
            guideline="g-1",
            team_id="phone",
        ),
        CHARGED,
    )


@rule("the pool that reserved the amount pays it")
def test_the_pool_pays_the_amount_that_it_reserved() -> None:
    scenario = (
        given(company(escalation=TEAM_PAYS), *FROM_POOL)
        .when(approve("esc-1", "X-1"))
        .then(
            approved("35.00", paid_by="team:doorstep"),
            taken(
                "35.00",
                "D-1",
                holder="team:doorstep",
                escalation_id="esc-1",
                limits=(*met(approves=(None, "0.00")), *met(payer=("40.00", "35.00"))),
            ),
        )
    )
    pool = scenario.budget("team:doorstep")
    assert (pool.spent_minor, pool.reserved_minor) == (3500, 0)


def test_of_a_reserved_amount_the_part_that_is_not_approved_is_released() -> None:
    scenario = (
        given(company(escalation=TEAM_PAYS), *FROM_POOL)
        .when(approve("esc-1", "X-1", "20.00"))
        .then(
            approved("20.00", paid_by="team:doorstep"),
            taken("20.00", "D-1", holder="team:doorstep", escalation_id="esc-1", limits=ANY),
        )
    )
    assert scenario.budget("team:doorstep").remaining_minor == 2000


@rule("the payer's budget covers the amount: the team's pool, else the approver's")
def test_an_amount_above_the_rest_of_the_approvers_budget_is_refused() -> None:
    spent = taken("1910.01", "M-1", kind="fix", action_id="act-0a")
    reason = why("payer", limit="2000.00", used="1910.01", asked="90.00")
    given(company(), spent, ASKED).when(approve("esc-1", "M-1")).then(
        attempt("M-1", reason), answer={"outcome": "refused"}
    )


def test_a_pool_that_lost_money_since_it_reserved_the_amount_does_not_pay_it() -> None:
    later = (
        drawn("team:doorstep", "out", "agent:D-2", "10.00", action_id="act-02"),
        taken("5.00", "D-2", holder="team:doorstep", action_id="act-03"),
    )
    reason = why("payer", limit="30.00", used="5.00", asked="35.00")
    given(company(escalation=TEAM_PAYS), *FROM_POOL, *later).when(approve("esc-1", "X-1")).then(
        attempt("X-1", reason, role="director", amount="35.00", kind="credit", holder="agent:D-1")
    )


def test_an_approval_may_use_exactly_the_rest_of_the_approvers_budget() -> None:
    spent = taken("1910.00", "M-1", kind="fix", action_id="act-0a")
    found = given(company(), spent, ASKED).when(approve("esc-1", "M-1"))
    assert found.answer["status"] == "approved"


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
def test_an_approved_amount_that_is_owed_needs_no_budget(basis: str) -> None:
    spent = taken("2000.00", "M-1", kind="fix", action_id="act-0a")
    asked = requested("90.00", basis=basis, order_id="O-1")
    given(company(), paid("O-1", "90.00"), spent, asked).when(approve("esc-1", "M-1")).then(
        approved("90.00", paid_by="agent:M-1"),
        taken("90.00", holder="agent:M-1", escalation_id="esc-1", limits=ANY, owed="90.00"),
        order_charged("O-1", "90.00", paid="90.00", used="0.00"),
    )


@rule("an approval stays within the approver's `approves`")
def test_an_approval_stays_within_the_approvers_right() -> None:
    reason = why("approves", limit="500.00", used="0.00", asked="500.01")
    given(company(), requested("500.01")).when(approve("esc-1", "M-1")).then(
        attempt("M-1", reason, amount="500.01"), answer={"outcome": "refused"}
    )


def test_less_within_the_approvers_right_may_be_approved() -> None:
    found = given(company(), requested("500.01")).when(approve("esc-1", "M-1", "500.00"))
    assert found.answer["status"] == "approved"


def test_a_role_without_the_right_to_a_kind_does_not_approve_it() -> None:
    given(company(), requested("5.00", kind="credit")).when(approve("esc-1", "M-1")).then(
        attempt("M-1", why("approves", asked="5.00"), amount="5.00", kind="credit")
    )


def test_an_agent_approves_nothing() -> None:
    given(company(), ASKED).when(approve("esc-1", "A-8")).then(
        attempt("A-8", why("approves", asked="90.00"), role="agent")
    )


@rule("requesters may not decide their own request")
def test_requesters_may_not_approve_their_own_request() -> None:
    given(company(), requested("90.00", "M-1", to=("X-1",))).when(approve("esc-1", "M-1")).then(
        attempt("M-1", why("own_request"), holder="agent:M-1"), answer={"outcome": "refused"}
    )


@pytest.mark.parametrize("relation", [linked("M-1", "C-9"), related("M-1", "C-9"), linked("C-9", "M-1", "same_person")])
def test_an_approver_does_not_decide_for_the_own_household_or_a_relation(relation: Described) -> None:
    given(company(), relation, ASKED).when(approve("esc-1", "M-1")).then(attempt("M-1", why("self_dealing")))


@rule("an approver does not decide for the own account, household or relation")
def test_an_approver_does_not_decide_for_the_own_account() -> None:
    given(company(), requested("90.00", customer_id="M-1")).when(approve("esc-1", "M-1")).then(
        attempt("M-1", why("self_dealing"))
    )


def test_an_approver_who_has_left_decides_nothing() -> None:
    given(company(), ASKED, left("M-1")).when(approve("esc-1", "M-1")).then(attempt("M-1", why("left")))


def test_a_source_may_not_decide_for_a_role_that_the_policy_does_not_give_it() -> None:
    sources = {"crm": ["agent"], "desk": ["manager", "agent"]}
    given(company(sources=sources), ASKED).when(approve("esc-1", "M-1")).then(attempt("M-1", why("source")))


def test_a_refused_attempt_is_recorded_on_the_requesters_budget() -> None:
    given(company(), ASKED).when(approve("esc-1", "A-8", reason="in a hurry")).then(
        attempt("A-8", why("approves", asked="90.00"), role="agent", holder="agent:A-7", reason="in a hurry"),
        answer={"outcome": "refused", "escalation_id": "esc-1", "budget": balance("agent:A-7", "200.00")},
    )


def test_a_refused_attempt_leaves_the_escalation_open() -> None:
    scenario = (
        given(company(), ASKED)
        .when(approve("esc-1", "A-8"))
        .then(attempt("A-8", why("approves", asked="90.00"), role="agent"))
    )
    assert scenario.when(approve("esc-1", "M-1"), request_id="d-2").answer["status"] == "approved"


def test_an_unknown_employee_decides_nothing() -> None:
    given(company(), ASKED).when(approve("esc-1", "M-99")).refused_with("unknown_agent", "decided_by")


def test_an_unknown_escalation_is_not_decided() -> None:
    given(company()).when(approve("esc-9", "M-1")).refused_with("unknown_escalation", "escalation_id")


def test_before_an_escalation_is_unknown_the_decider_reads_on() -> None:
    given(company()).when(approve("esc-9", "M-1"), current=False).retries(Retry.AFTER_CATCH_UP)


ENDS = [
    approved("90.00", paid_by="agent:M-1", action_id="act-01", asked="90.00", escalation_id="esc-1"),
    denied(amount="90.00", escalation_id="esc-1"),
    withdrawn(amount="90.00", escalation_id="esc-1"),
    expired(amount="90.00", escalation_id="esc-1"),
]


@rule("an escalation is decided once")
def test_a_denied_escalation_is_not_approved() -> None:
    given(company(), ASKED, ENDS[1]).when(approve("esc-1", "M-1")).refused_with("already_decided", "escalation_id")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("command", [approve("esc-1", "M-1"), deny("esc-1", "M-1"), withdraw("esc-1", "A-7")])
def test_an_escalation_that_has_ended_is_not_decided_again(end: Described, command: object) -> None:
    given(company(), ASKED, end).when(command).refused_with("already_decided", "escalation_id")  # type: ignore[arg-type]


def test_a_decision_that_another_decider_made_is_read_first() -> None:
    given(company(), ASKED).not_read_yet(ENDS[1]).when(approve("esc-1", "M-1")).retries(Retry.AFTER_CATCH_UP)


def test_an_escalation_is_approved_in_a_later_period() -> None:
    asked = requested("90.00", at="2026-02-27T09:00:00Z")
    given(company(), asked).when(approve("esc-1", "M-1")).then(
        closed("agent:A-7", "2026-02", lapsed="150.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00", escalations=("esc-1",)),
        approved("90.00", paid_by="agent:M-1"),
        M1_OPENED,
        taken("90.00", holder="agent:M-1", escalation_id="esc-1", limits=ANY),
    )


# ---------------------------------------------------------------------- delegates


@rule("a delegate may decide for an absent approver")
def test_a_delegate_decides_with_the_authority_of_the_absent_person() -> None:
    given(company(), delegated("M-1", "A-8"), ASKED).when(approve("esc-1", "A-8")).then(
        approved("90.00", paid_by="agent:M-1", on_behalf_of="M-1"),
        M1_OPENED,
        taken("90.00", holder="agent:M-1", escalation_id="esc-1", on_behalf_of="M-1", limits=ANY),
        CHARGED,
    )


@pytest.mark.parametrize(
    ("start", "end", "outcome"),
    [
        ("2026-03-10T09:00:00Z", "2026-03-11T09:00:00Z", "done"),
        ("2026-03-10T09:00:01Z", "2026-03-11T09:00:00Z", "refused"),
        ("2026-03-09T09:00:00Z", "2026-03-10T09:00:00Z", "refused"),
    ],
)
def test_a_delegate_decides_for_the_time_of_the_delegation(start: str, end: str, outcome: str) -> None:
    found = given(company(), delegated("M-1", "A-8", start, end), ASKED).when(approve("esc-1", "A-8"))
    assert found.answer["outcome"] == outcome


def test_the_requester_does_not_decide_as_a_delegate() -> None:
    given(company(), delegated("M-1", "A-7"), ASKED).when(approve("esc-1", "A-7")).then(
        attempt("A-7", why("own_request"), role="agent")
    )


def test_a_delegate_does_not_decide_the_request_of_the_absent_person() -> None:
    asked = requested("90.00", "M-1", to=("X-1",))
    given(company(), delegated("M-1", "A-8"), asked).when(approve("esc-1", "A-8")).then(
        attempt("A-8", why("approves", asked="90.00"), role="agent", holder="agent:M-1")
    )


def test_a_delegate_stays_within_the_right_of_the_absent_person() -> None:
    given(company(), delegated("M-1", "A-8"), requested("500.01")).when(approve("esc-1", "A-8")).then(
        attempt("A-8", why("approves", asked="500.01"), role="agent", amount="500.01")
    )


def test_a_delegate_who_may_approve_alone_uses_the_own_authority() -> None:
    given(company(), delegated("M-1", "M-2"), ASKED).when(approve("esc-1", "M-2")).then(
        approved("90.00", paid_by="agent:M-2"),
        opened("agent:M-2", "2000.00"),
        taken("90.00", holder="agent:M-2", escalation_id="esc-1", limits=ANY),
        CHARGED,
    )


def test_a_delegate_forwards_for_the_absent_person() -> None:
    given(company(), delegated("X-1", "A-8"), requested("600.00", to=("X-1",))).when(
        forward("esc-1", "A-8", "M-2")
    ).then(forwarded("M-2", due="2026-03-12T09:00:00Z", on_behalf_of="X-1"))


def test_a_delegate_denies_for_the_absent_person() -> None:
    given(company(), delegated("M-1", "A-8"), ASKED).when(deny("esc-1", "A-8")).then(denied(on_behalf_of="M-1"))


def test_a_delegate_of_an_absent_person_who_has_left_decides_nothing() -> None:
    found = given(company(), delegated("M-1", "A-8"), left("M-1"), ASKED).when(approve("esc-1", "A-8"))
    assert found.answer["outcome"] == "refused"


def test_a_delegate_does_not_decide_for_the_own_household() -> None:
    found = given(company(), delegated("M-1", "A-8"), linked("A-8", "C-9"), ASKED).when(approve("esc-1", "A-8"))
    assert found.answer["outcome"] == "refused"


# ---------------------------------------------------------------------- deny and withdraw


@rule("an approver may deny a request")
def test_a_denial_ends_the_escalation() -> None:
    given(company(), ASKED).when(deny("esc-1", "M-1", reason="not our fault")).then(
        denied(reason="not our fault", waited_seconds=86400.0),
        answer={"outcome": "done", "escalation_id": "esc-1", "status": "denied"},
    )


def test_the_answer_of_a_denial_has_the_documented_form() -> None:
    found = given(company(), ASKED).when(deny("esc-1", "M-1"))
    found.then(denied())
    assert encode(found.answer).decode() == (
        '{"outcome":"done","escalation_id":"esc-1","status":"denied",'
        '"amount":{"amount":"90.00","currency":"GBP"},"position":11}'
    )


def test_a_denial_releases_the_amount_that_the_pool_reserved() -> None:
    scenario = (
        given(company(escalation=TEAM_PAYS), *FROM_POOL)
        .when(deny("esc-1", "X-1"))
        .then(
            denied(),
            voided("35.00", ANY, agent_id="D-1", action_id="act-01", holder="team:doorstep", escalation_id="esc-1"),  # type: ignore[arg-type]
        )
    )
    assert scenario.budget("team:doorstep").remaining_minor == 4000


def test_an_approver_may_deny_any_amount_of_the_kind() -> None:
    given(company(), requested("500.01")).when(deny("esc-1", "M-1")).then(denied())


def test_a_person_who_was_asked_may_deny_without_the_right_to_approve() -> None:
    given(company(), requested("90.00", to=("A-8",))).when(deny("esc-1", "A-8")).then(denied())


def test_an_employee_without_the_right_who_was_not_asked_denies_nothing() -> None:
    given(company(), ASKED).when(deny("esc-1", "A-8")).then(
        attempt("A-8", why("approves", asked="90.00"), role="agent")
    )


def test_requesters_may_not_deny_their_own_request() -> None:
    given(company(), requested("90.00", "M-1", to=("X-1",))).when(deny("esc-1", "M-1")).then(
        attempt("M-1", why("own_request"), holder="agent:M-1")
    )


@rule("requesters may withdraw their request")
def test_the_requester_may_withdraw() -> None:
    given(company(), ASKED).when(withdraw("esc-1", "A-7")).then(
        withdrawn(), answer={"outcome": "done", "status": "withdrawn"}
    )


def test_a_withdrawal_releases_the_amount_that_the_pool_reserved() -> None:
    scenario = (
        given(company(escalation=TEAM_PAYS), *FROM_POOL)
        .when(withdraw("esc-1", "D-1"))
        .then(
            withdrawn(),
            voided("35.00", ANY, agent_id="D-1", action_id="act-01", holder="team:doorstep", escalation_id="esc-1"),  # type: ignore[arg-type]
        )
    )
    assert scenario.budget("team:doorstep").reserved_minor == 0


@rule("only the requester may withdraw")
def test_only_the_requester_may_withdraw() -> None:
    given(company(), ASKED).when(withdraw("esc-1", "M-1")).then(
        attempt("M-1", why("not_requester")), answer={"outcome": "refused"}
    )


@rule("a person who has left does not withdraw either")
def test_a_requester_who_has_left_withdraws_nothing() -> None:
    given(company(), ASKED, left("A-7")).when(withdraw("esc-1", "A-7")).then(
        attempt("A-7", why("left"), role="agent"), answer={"outcome": "refused"}
    )


# ---------------------------------------------------------------------- leavers, and people whom nobody announced


@rule("the request of a person who has left is not approved")
def test_the_request_of_a_leaver_is_not_approved() -> None:
    given(company(), ASKED, left("A-7")).when(approve("esc-1", "M-1")).then(
        attempt("M-1", why("left")), answer={"outcome": "refused"}
    )


def test_the_request_of_a_leaver_is_not_forwarded() -> None:
    given(company(), ASKED, left("A-7")).when(forward("esc-1", "M-1", "X-1")).then(attempt("M-1", why("left")))


def test_the_request_of_a_leaver_may_be_denied() -> None:
    given(company(), ASKED, left("A-7")).when(deny("esc-1", "M-1")).then(denied())


@rule("the open request of a person who has left ends")
def test_the_open_request_of_a_leaver_ends_at_once_and_its_reservation_is_released() -> None:
    scenario = (
        given(company(escalation=TEAM_PAYS), *FROM_POOL, left("D-1", at="2026-03-10T09:00:00Z"))
        .when_time_passes("2026-03-10T09:00:00Z")
        .then(
            expired(reason="the requester has left the company", waited_seconds=86400.0),
            voided("35.00", ANY, agent_id="D-1", action_id="act-01", holder="team:doorstep", escalation_id="esc-1"),  # type: ignore[arg-type]
        )
    )
    assert scenario.budget("team:doorstep").reserved_minor == 0


def test_a_delegate_does_not_decide_for_an_absent_person_who_has_left() -> None:
    given(company(), ASKED, delegated("M-1", "A-8"), left("M-1")).when(approve("esc-1", "A-8")).then(
        attempt("A-8", why("approves", asked="90.00"), role="agent")
    )


@rule("a person whom no source announced decides nothing, whatever the default role")
def test_a_person_whom_no_source_announced_approves_nothing() -> None:
    given(company(default_role="manager"), ASKED).when(approve("esc-1", "N-1")).then(
        attempt("N-1", why("not_announced"), role="manager")
    )


def test_a_person_whom_no_source_announced_denies_and_forwards_nothing() -> None:
    for decide in (deny, forward):
        given(company(default_role="manager"), ASKED).when(decide("esc-1", "N-1")).then(
            attempt("N-1", why("not_announced"), role="manager")
        )


def test_a_delegate_whom_no_source_announced_decides_nothing() -> None:
    given(company(default_role="agent"), ASKED, delegated("M-1", "N-1")).when(approve("esc-1", "N-1")).then(
        attempt("N-1", why("not_announced"), role="agent")
    )


def test_an_escalation_is_not_forwarded_to_a_person_whom_no_source_announced() -> None:
    given(company(default_role="manager"), ASKED).when(forward("esc-1", "M-1", "N-1")).refused_with("invalid", "to")


# ---------------------------------------------------------------------- forward


@rule("an approver may forward a request to a person, or one level up")
def test_an_escalation_is_forwarded_one_level_up() -> None:
    given(company(), ASKED).when(forward("esc-1", "M-1", reason="too large for me")).then(
        forwarded("X-1", due="2026-03-12T09:00:00Z", reason="too large for me"),
        answer={"outcome": "done", "status": "forwarded", "to": ["X-1"], "due": "2026-03-12T09:00:00Z"},
    )


def test_the_answer_of_a_forward_has_the_documented_form() -> None:
    found = given(company(), ASKED).when(forward("esc-1", "M-1"))
    found.then(forwarded("X-1", due="2026-03-12T09:00:00Z"))
    assert encode(found.answer).decode() == (
        '{"outcome":"done","escalation_id":"esc-1","status":"forwarded",'
        '"amount":{"amount":"90.00","currency":"GBP"},"position":11,"to":["X-1"],"due":"2026-03-12T09:00:00Z"}'
    )


def test_an_escalation_is_forwarded_to_a_named_person() -> None:
    given(company(), ASKED).when(forward("esc-1", "M-1", "M-2")).then(forwarded("M-2", due="2026-03-12T09:00:00Z"))


def test_a_forwarded_escalation_is_decided_by_the_person_asked_now() -> None:
    passed_on = forwarded("M-2", escalation_id="esc-1", amount="90.00", due="2026-03-12T09:00:00Z")
    found = given(company(), ASKED, passed_on).when(approve("esc-1", "M-2"))
    assert found.answer["paid_by"] == "agent:M-2"


def test_an_escalation_keeps_its_reservation_when_it_is_forwarded() -> None:
    scenario = (
        given(company(escalation=TEAM_PAYS), *FROM_POOL)
        .when(forward("esc-1", "X-1", "M-1"))
        .then(forwarded("M-1", due="2026-03-12T09:00:00Z"))
    )
    assert scenario.budget("team:doorstep").reserved_minor == 3500


def test_a_person_who_was_asked_may_forward_without_the_right_to_approve() -> None:
    given(company(), requested("90.00", to=("A-8",))).when(forward("esc-1", "A-8", "M-2")).then(
        forwarded("M-2", due="2026-03-12T09:00:00Z")
    )


def test_an_employee_without_the_right_who_was_not_asked_forwards_nothing() -> None:
    given(company(), ASKED).when(forward("esc-1", "A-8", "M-2")).then(
        attempt("A-8", why("approves", asked="90.00"), role="agent")
    )


def test_an_escalation_is_not_forwarded_to_its_requester() -> None:
    given(company(), ASKED).when(forward("esc-1", "M-1", "A-7")).refused_with("invalid", "to")


def test_an_escalation_is_not_forwarded_to_an_employee_who_has_left() -> None:
    given(company(), ASKED, left("M-2")).when(forward("esc-1", "M-1", "M-2")).refused_with("invalid", "to")


def test_an_escalation_is_not_forwarded_to_an_unknown_employee() -> None:
    given(company(), ASKED).when(forward("esc-1", "M-1", "M-99")).refused_with("unknown_agent", "to")


def test_above_the_last_level_a_person_must_be_named() -> None:
    given(company(), requested("90.00", to=("X-1",))).when(forward("esc-1", "X-1")).refused_with("nobody_above", "to")


# ---------------------------------------------------------------------- no answer


@rule("a request without an answer in time goes to the next level")
def test_an_escalation_without_an_answer_goes_to_the_next_level() -> None:
    given(company(), ASKED).when_time_passes("2026-03-11T09:00:00Z").then(
        forwarded("X-1", due="2026-03-13T09:00:00Z", reason=ANY, waited_seconds=172800.0)
    )


def test_an_escalation_is_not_forwarded_before_its_time() -> None:
    given(company(), ASKED).when_time_passes("2026-03-11T08:59:59Z").then()


def test_a_manager_who_has_left_is_passed_over() -> None:
    asked = requested("90.00", to=("N-1",))
    staff = joined("N-1", "manager", manager_id="M-1"), left("M-1")
    given(company(), *staff, asked).when_time_passes("2026-03-11T09:00:00Z").then(
        forwarded("X-1", due="2026-03-13T09:00:00Z", reason=ANY)
    )


def test_a_manager_without_the_right_is_passed_over() -> None:
    staff = joined("L-1", "agent", manager_id="X-1"), joined("N-1", "manager", manager_id="L-1")
    given(company(), *staff, requested("90.00", to=("N-1",))).when_time_passes("2026-03-11T09:00:00Z").then(
        forwarded("X-1", due="2026-03-13T09:00:00Z", reason=ANY)
    )


def test_a_manager_whose_right_does_not_reach_is_passed_over() -> None:
    staff = joined("N-1", "manager", manager_id="M-1"), requested("600.00", to=("N-1",))
    given(company(), *staff).when_time_passes("2026-03-11T09:00:00Z").then(
        forwarded("X-1", due="2026-03-13T09:00:00Z", reason=ANY)
    )


@rule("a request without an answer and without a higher level expires")
def test_an_escalation_without_a_higher_level_expires() -> None:
    given(company(), requested("90.00", to=("X-1",))).when_time_passes("2026-03-11T09:00:00Z").then(
        expired(reason=ANY, waited_seconds=172800.0)
    )


def test_a_forwarded_escalation_waits_for_its_new_time() -> None:
    passed_on = forwarded("X-1", escalation_id="esc-1", amount="90.00", due="2026-03-13T09:00:00Z")
    given(company(), ASKED, passed_on).when_time_passes("2026-03-12T09:00:00Z").then()


def test_a_forwarded_escalation_expires_at_its_new_time() -> None:
    passed_on = forwarded("X-1", escalation_id="esc-1", amount="90.00", due="2026-03-13T09:00:00Z")
    given(company(), ASKED, passed_on).when_time_passes("2026-03-13T09:00:00Z").then(expired(reason=ANY))


def test_the_policy_may_let_an_escalation_expire_at_once() -> None:
    at_once = {"payer": "approver", "after_hours": 48, "then": "expire"}
    given(company(escalation=at_once), ASKED).when_time_passes("2026-03-11T09:00:00Z").then(expired(reason=ANY))


def test_the_requester_is_not_the_next_level() -> None:
    asked = requested("90.00", "M-1", to=("N-1",))
    given(company(), joined("N-1", "manager", manager_id="M-1"), asked).when_time_passes("2026-03-11T09:00:00Z").then(
        forwarded("X-1", due="2026-03-13T09:00:00Z", reason=ANY)
    )


def test_an_expiry_releases_the_amount_that_the_pool_reserved() -> None:
    scenario = (
        given(company(escalation=TEAM_PAYS), *FROM_POOL)
        .when_time_passes("2026-03-11T09:00:00Z")
        .then(
            expired(reason=ANY),
            voided(
                "35.00", "expired", agent_id="D-1", action_id="act-01", holder="team:doorstep", escalation_id="esc-1"
            ),
        )
    )
    assert scenario.budget("team:doorstep").remaining_minor == 4000


@pytest.mark.parametrize("end", ENDS)
def test_an_escalation_that_has_ended_does_not_expire(end: Described) -> None:
    given(company(), ASKED, end).when_time_passes("2026-04-01T09:00:00Z").then()


def test_an_answer_that_another_decider_recorded_is_read_before_an_escalation_expires() -> None:
    scenario = given(company(), ASKED).not_read_yet(ENDS[1])
    scenario.when_time_passes("2026-03-11T09:00:00Z").retries(Retry.WHEN_IDLE)


def test_the_timer_of_an_earlier_deadline_does_not_end_a_forwarded_escalation() -> None:
    passed_on = forwarded("X-1", escalation_id="esc-1", amount="90.00", due="2026-03-13T09:00:00Z")
    late = OverdueEscalation("agent:A-7", "esc-1", instant("2026-03-11T09:00:00Z").timestamp())
    given(company(), ASKED, passed_on).when_due(late, instant("2026-03-11T09:00:01Z")).then()


def test_an_escalation_expires_in_the_period_that_is_open_then() -> None:
    asked = requested("90.00", to=("X-1",), at="2026-02-27T09:00:00Z")
    given(company(), asked).when_time_passes("2026-03-01T09:00:00Z").then(
        closed("agent:A-7", "2026-02", lapsed="150.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00", escalations=("esc-1",)),
        expired(reason=ANY),
    )
