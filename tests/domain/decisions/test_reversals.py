"""Reversals: an action taken back, wholly or in parts; recovered money may be given again."""

import hashlib

import pytest

from domain.decisions.decision import Retry
from domain.serialization import encode
from tests.support.decision_commands import action, reverse
from tests.support.decision_company import STAFF, company, policy
from tests.support.decision_events import (
    ANY,
    charged,
    closed,
    held,
    opened,
    published,
    reported,
    reversal,
    settled,
    taken,
    voided,
)
from tests.support.decision_scenarios import balance, given, rule

TAKEN = taken("20.00", action_id="act-01", interaction_id="I-1")
REPORTED_ID = "act-" + hashlib.sha256(b"crm\ntill-1").hexdigest()[:32]


@rule("a reversal restores authority where the money was recovered")
def test_a_recovered_amount_may_be_given_again() -> None:
    given(company(), TAKEN).when(reverse("act-01")).then(
        reversal("20.00", relates_to=10),
        answer={
            "outcome": "done",
            "action_id": "act-01",
            "amount": {"amount": "20.00", "currency": "GBP"},
            "budget": balance("agent:A-7", "200.00"),
        },
    )


def test_an_amount_that_was_not_recovered_stays_spent() -> None:
    given(company(), TAKEN).when(reverse("act-01", recovered=False)).then(
        reversal("20.00", recovered=False, relates_to=10),
        answer={"budget": balance("agent:A-7", "200.00", spent="20.00")},
    )


def test_the_answer_of_a_reversal_has_the_documented_form() -> None:
    found = given(company(), TAKEN).when(reverse("act-01"))
    found.then(reversal("20.00", relates_to=10))
    assert encode(found.answer).decode() == (
        '{"outcome":"done","action_id":"act-01","amount":{"amount":"20.00","currency":"GBP"},"position":11,'
        '"budget":{"holder":"agent:A-7","period":"2026-03","granted":{"amount":"200.00","currency":"GBP"},'
        '"spent":{"amount":"0.00","currency":"GBP"},"reserved":{"amount":"0.00","currency":"GBP"},'
        '"remaining":{"amount":"200.00","currency":"GBP"}}}'
    )


def test_a_reversal_records_the_person_and_the_reason() -> None:
    request = reverse("act-01", "5.00", reversed_by="X-1", reason="double payment")
    given(company(), TAKEN).when(request).then(
        reversal("5.00", reversed_by="X-1", reason="double payment", relates_to=10)
    )


@rule("a reversal is at most what is left of the action, in one or more parts")
def test_an_action_is_reversed_in_parts_up_to_its_amount() -> None:
    earlier = reversal("15.00", relates_to=10)
    given(company(), TAKEN, earlier).when(reverse("act-01", "5.01")).refused_with("invalid", "amount.amount")


def test_a_reversal_without_an_amount_reverses_the_rest() -> None:
    earlier = reversal("15.00", relates_to=10)
    given(company(), TAKEN, earlier).when(reverse("act-01")).then(reversal("5.00", relates_to=10))


def test_an_action_that_was_reversed_whole_is_not_reversed_again() -> None:
    earlier = reversal("20.00", relates_to=10, recovered=False)
    given(company(), TAKEN, earlier).when(reverse("act-01")).refused_with("nothing_left", "action_id")


def test_an_amount_of_zero_is_not_reversed() -> None:
    given(company(), TAKEN).when(reverse("act-01", "0.00")).refused_with("invalid", "amount.amount")


def test_an_action_is_reversed_in_its_own_currency() -> None:
    given(company(), TAKEN).when(reverse("act-01", "5.00 EUR")).refused_with("currency", "amount.currency")


def test_an_unknown_action_is_not_reversed() -> None:
    given(company()).when(reverse("act-99")).refused_with("unknown_action", "action_id")


def test_before_an_action_is_unknown_to_a_reversal_the_decider_reads_on() -> None:
    given(company()).when(reverse("act-99"), current=False).retries(Retry.AFTER_CATCH_UP)


def test_without_a_policy_nothing_is_reversed() -> None:
    given(STAFF).when(reverse("act-01")).refused_with("no_policy")


@rule("a hold is voided, not reversed")
def test_a_hold_is_not_reversed() -> None:
    given(company(), held("20.00", action_id="act-01")).when(reverse("act-01")).refused_with("not_taken", "action_id")


def test_a_voided_hold_is_not_reversed() -> None:
    earlier = held("20.00", action_id="act-01"), voided("20.00", "voided")
    given(company(), *earlier).when(reverse("act-01")).refused_with("not_taken", "action_id")


def test_of_a_settled_hold_the_paid_amount_is_reversed() -> None:
    earlier = held("20.00", action_id="act-01"), settled("12.50", held="20.00")
    given(company(), *earlier).when(reverse("act-01")).then(
        reversal("12.50", relates_to=ANY), answer={"budget": balance("agent:A-7", "200.00")}
    )


def test_more_than_the_paid_amount_of_a_hold_is_not_reversed() -> None:
    earlier = held("20.00", action_id="act-01"), settled("12.50", held="20.00")
    given(company(), *earlier).when(reverse("act-01", "12.51")).refused_with("invalid", "amount.amount")


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
def test_the_reversal_of_an_action_that_drew_no_budget_restores_none(basis: str) -> None:
    given(company(), taken("20.00", action_id="act-01", basis=basis)).when(reverse("act-01")).then(
        reversal("20.00", relates_to=10), answer={"budget": balance("agent:A-7", "200.00")}
    )


def test_a_recovered_amount_may_be_given_again_on_its_interaction() -> None:
    earlier = (
        taken("50.00", action_id="act-01", interaction_id="I-1"),
        reversal("50.00", relates_to=10, interaction_id="I-1"),
    )
    found = given(company(), *earlier).when(action("50.00", interaction_id="I-1"))
    assert found.answer["outcome"] == "taken"


def test_an_approved_action_is_reversed_on_the_budget_that_paid() -> None:
    paid = taken("90.00", action_id="act-01", holder="agent:M-1", authority="approved", decided_by="M-1")
    given(company(), opened("agent:M-1", "2000.00"), paid).when(reverse("act-01")).then(
        reversal("90.00", relates_to=10), answer={"budget": balance("agent:M-1", "2000.00")}
    )


@rule("money that is recovered after the period was closed is added to the present grant")
def test_a_late_reversal_adds_the_recovered_amount_to_the_present_grant() -> None:
    earlier = taken("20.00", action_id="act-01", at="2026-02-27T09:00:00Z")
    given(company(), earlier).when(reverse("act-01")).then(
        closed("agent:A-7", "2026-02", spent="20.00", lapsed="130.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00"),
        reversal("20.00", relates_to=10, late=True),
        answer={"budget": balance("agent:A-7", "270.00")},
    )


def test_a_late_reversal_without_recovered_money_adds_nothing() -> None:
    earlier = taken("20.00", action_id="act-01", at="2026-02-27T09:00:00Z")
    given(company(), earlier).when(reverse("act-01", recovered=False)).then(
        closed("agent:A-7", "2026-02", spent="20.00", lapsed="130.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00"),
        reversal("20.00", relates_to=10, late=True, recovered=False),
        answer={"budget": balance("agent:A-7", "250.00")},
    )


def test_a_reported_action_is_reversed_once_it_was_posted() -> None:
    offline = reported("20.00", event_id="till-1")
    scenario = given(company(), offline).when_posted().then(opened("agent:A-7", "200.00"), charged("20.00"))
    scenario.when(reverse(REPORTED_ID)).then(
        reversal("20.00", relates_to=9), answer={"budget": balance("agent:A-7", "200.00")}
    )


def test_a_reported_action_is_not_reversed_before_it_was_posted() -> None:
    given(company(), reported("20.00", event_id="till-1")).when(reverse(REPORTED_ID)).refused_with(
        "not_posted", "action_id"
    )


def test_under_a_policy_of_earlier_rules_a_reported_entitlement_is_reversed_without_a_posting() -> None:
    earlier = published(policy(), rules_version=1), *STAFF
    offline = reported("20.00", event_id="till-1", basis="entitlement")
    given(earlier, offline).when(reverse(REPORTED_ID)).then(
        opened("agent:A-7", "200.00"), reversal("20.00", relates_to=9, late=ANY)
    )


def test_the_decider_waits_for_the_posting_of_a_reported_action() -> None:
    scenario = given(company(), reported("20.00", event_id="till-1"))
    scenario.when(reverse(REPORTED_ID), current=False).retries(Retry.WHEN_IDLE)


def test_the_decider_waits_for_all_earlier_reversals_of_an_action() -> None:
    scenario = given(company(), TAKEN).not_read_yet(reversal("20.00", relates_to=10))
    scenario.when(reverse("act-01")).retries(Retry.WHEN_IDLE)
