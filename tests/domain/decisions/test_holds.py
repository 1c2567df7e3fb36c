"""Holds: reserved by an action, then settled, voided, or released when they expire."""

import pytest

from domain.decisions.decision import Retry
from domain.decisions.holds import OverdueHold
from domain.serialization import encode
from tests.support.decision_commands import action, settle, void
from tests.support.decision_company import STAFF, company
from tests.support.decision_events import (
    ANY,
    Described,
    closed,
    fell_short,
    held,
    instant,
    met,
    open_hold,
    opened,
    paid,
    refund_settled,
    settled,
    taken,
    voided,
    why,
)
from tests.support.decision_scenarios import balance, given, rule

OPENED = opened("agent:A-7", "200.00")
HELD = held("20.00", action_id="act-01", interaction_id="I-1")


@rule("a hold reserves the amount until it is settled, for 7 days")
def test_a_hold_reserves_its_amount_for_seven_days() -> None:
    given(company()).when(action("20.00", hold=True)).then(
        OPENED,
        held(
            "20.00",
            expires_at="2026-03-17T09:00:00Z",
            limits=met(per_action=("50.00", "0.00"), budget=("200.00", "0.00")),
        ),
        answer={
            "outcome": "held",
            "expires_at": "2026-03-17T09:00:00Z",
            "budget": balance("agent:A-7", "200.00", reserved="20.00"),
        },
    )


def test_the_answer_of_a_hold_has_the_documented_form() -> None:
    found = given(company()).when(action("20.00", hold=True))
    found.then(OPENED, held("20.00", expires_at=ANY, limits=ANY))
    assert list(found.answer) == [
        *("outcome", "action_id", "position", "policy_version", "reasons", "budget", "expires_at")
    ]


def test_a_hold_meets_the_same_limits_as_an_action() -> None:
    reason = why("per_action", limit="50.00", used="0.00", asked="50.01")
    given(company()).when(action("50.01", hold=True)).then(OPENED, fell_short("50.01", "escalate", reason))


def test_a_hold_of_an_entitlement_reserves_nothing() -> None:
    given(company(), paid("O-1", "20.00")).when(action("20.00", hold=True, basis="entitlement", order_id="O-1")).then(
        OPENED,
        held("20.00", expires_at="2026-03-17T09:00:00Z", limits=ANY, owed="20.00"),
        answer={"outcome": "held", "budget": balance("agent:A-7", "200.00")},
    )


# ---------------------------------------------------------------------- settle


@rule("settling spends what was paid and releases the rest")
def test_settling_a_part_spends_it_and_releases_the_rest() -> None:
    given(company(), HELD).when(settle("act-01", "12.50")).then(
        settled("12.50", held="20.00"),
        answer={
            "outcome": "done",
            "action_id": "act-01",
            "amount": {"amount": "12.50", "currency": "GBP"},
            "budget": balance("agent:A-7", "200.00", spent="12.50"),
        },
    )


def test_the_answer_of_a_settlement_has_the_documented_form() -> None:
    found = given(company(), HELD).when(settle("act-01", "12.50"))
    found.then(settled("12.50", held="20.00"))
    assert encode(found.answer).decode() == (
        '{"outcome":"done","action_id":"act-01","amount":{"amount":"12.50","currency":"GBP"},"position":11,'
        '"budget":{"holder":"agent:A-7","period":"2026-03","granted":{"amount":"200.00","currency":"GBP"},'
        '"spent":{"amount":"12.50","currency":"GBP"},"reserved":{"amount":"0.00","currency":"GBP"},'
        '"remaining":{"amount":"187.50","currency":"GBP"}}}'
    )


def test_settling_without_an_amount_spends_all_that_was_held() -> None:
    given(company(), HELD).when(settle("act-01")).then(
        settled("20.00", held="20.00"), answer={"budget": balance("agent:A-7", "200.00", spent="20.00")}
    )


def test_more_than_was_held_is_not_settled() -> None:
    given(company(), HELD).when(settle("act-01", "20.01")).refused_with("invalid", "amount.amount")


def test_a_hold_is_settled_in_its_own_currency() -> None:
    given(company(), HELD).when(settle("act-01", "20.00 EUR")).refused_with("currency", "amount.currency")


def test_a_settled_hold_is_not_settled_again() -> None:
    given(company(), HELD, settled("20.00", held="20.00")).when(settle("act-01")).refused_with("not_held", "action_id")


def test_a_voided_hold_is_not_settled() -> None:
    given(company(), HELD, voided("20.00", "voided")).when(settle("act-01")).refused_with("not_held", "action_id")


def test_a_taken_action_is_not_settled() -> None:
    given(company(), taken("20.00")).when(settle("act-01")).refused_with("not_held", "action_id")


def test_an_unknown_action_is_not_settled() -> None:
    given(company()).when(settle("act-99")).refused_with("unknown_action", "action_id")


def test_before_an_action_is_unknown_the_decider_reads_on() -> None:
    given(company()).when(settle("act-99"), current=False).retries(Retry.AFTER_CATCH_UP)


def test_before_a_hold_is_over_the_decider_reads_on() -> None:
    scenario = given(company(), HELD).not_read_yet(settled("20.00", held="20.00"))
    scenario.when(settle("act-01")).retries(Retry.AFTER_CATCH_UP)


def test_without_a_policy_nothing_is_settled() -> None:
    given(STAFF).when(settle("act-01")).refused_with("no_policy")


def test_settling_an_entitlement_spends_nothing_of_the_budget() -> None:
    entitled = held("20.00", action_id="act-01", basis="entitlement")
    given(company(), entitled).when(settle("act-01")).then(
        settled("20.00", held="0.00"), answer={"budget": balance("agent:A-7", "200.00")}
    )


def test_any_source_may_settle_a_hold() -> None:
    given(company(), HELD).when(settle("act-01"), source="payments").then(settled("20.00", held="20.00"))


def test_a_hold_of_the_last_period_is_settled_in_the_present_one() -> None:
    earlier = held("20.00", action_id="act-01", at="2026-02-27T09:00:00Z")
    given(company(), earlier).when(settle("act-01", "15.00"), at="2026-03-02T09:00:00Z").then(
        closed("agent:A-7", "2026-02", lapsed="130.00", carried_over="50.00", reserved="20.00"),
        opened("agent:A-7", "200.00", carried_over="50.00", holds=(open_hold("act-01", "20.00"),)),
        settled("15.00", held="20.00"),
        answer={"budget": balance("agent:A-7", "270.00", spent="15.00")},
    )


# ---------------------------------------------------------------------- void and expiry


@rule("voiding releases all of a hold")
def test_voiding_releases_the_whole_hold() -> None:
    given(company(), HELD).when(void("act-01", reason="not needed")).then(
        voided("20.00", "not needed"),
        answer={"outcome": "done", "action_id": "act-01", "budget": balance("agent:A-7", "200.00")},
    )


def test_a_reason_need_not_be_given_to_void_a_hold() -> None:
    given(company(), HELD).when(void("act-01")).then(voided("20.00", ANY))  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [settled("20.00", held="20.00"), voided("20.00", "voided")])
def test_a_hold_that_is_over_is_not_voided(after: Described) -> None:
    given(company(), HELD, after).when(void("act-01")).refused_with("not_held", "action_id")


@rule("a hold that was not settled in time is released")
def test_a_hold_is_released_after_seven_days() -> None:
    scenario = given(company(), HELD).when_time_passes("2026-03-16T09:00:00Z").then(voided("20.00", "expired"))
    assert scenario.budget("agent:A-7").remaining_minor == 20_000


def test_a_hold_is_not_released_before_seven_days_have_passed() -> None:
    given(company(), HELD).when_time_passes("2026-03-16T08:59:59Z").then()


@pytest.mark.parametrize("after", [settled("12.50", held="20.00"), voided("20.00", "voided")])
def test_a_hold_that_is_over_does_not_expire(after: Described) -> None:
    given(company(), HELD, after).when_time_passes("2026-04-01T09:00:00Z").then()


@pytest.mark.parametrize("after", [settled("12.50", held="20.00"), voided("20.00", "voided")])
def test_the_timer_of_a_hold_that_is_over_releases_nothing(after: Described) -> None:
    late = OverdueHold("agent:A-7", "act-01", instant("2026-03-16T09:00:00Z").timestamp())
    given(company(), HELD, after).when_due(late, instant("2026-03-16T09:00:01Z")).then()


def test_the_timer_of_an_unknown_hold_releases_nothing() -> None:
    late = OverdueHold("agent:A-7", "act-99", instant("2026-03-16T09:00:00Z").timestamp())
    given(company(), HELD).when_due(late, instant("2026-03-16T09:00:01Z")).then()


def test_a_hold_that_another_decider_settled_does_not_expire() -> None:
    given(company(), HELD).not_read_yet(settled("20.00", held="20.00")).when_time_passes("2026-03-16T09:00:00Z").then()


def test_a_hold_expires_into_the_period_that_is_open_then() -> None:
    earlier = held("20.00", action_id="act-01", at="2026-02-27T09:00:00Z")
    given(company(), earlier).when_time_passes("2026-03-06T09:00:00Z").then(
        closed("agent:A-7", "2026-02", lapsed="130.00", carried_over="50.00", reserved="20.00"),
        opened("agent:A-7", "200.00", carried_over="50.00", holds=(open_hold("act-01", "20.00"),)),
        voided("20.00", "expired"),
    )


# ---------------------------------------------------------------------- the payment processor


@rule("a refund that was paid settles its hold, by no more than was held")
def test_a_settled_refund_settles_its_hold_by_no_more_than_was_held() -> None:
    more = refund_settled("act-01", "20.01", event_id="pay-1")
    scenario = given(company(), HELD, more).when_posted()
    after = scenario.then(
        settled("20.00", held="20.00", beyond="0.01", source="payments", request_event_id="pay-1", relates_to=11)
    )
    assert after.budget("agent:A-7").spent_minor == 2000


def test_a_settled_refund_of_exactly_the_hold_has_nothing_beyond_it() -> None:
    given(company(), HELD, refund_settled("act-01", "20.00")).when_posted().then(
        settled("20.00", held="20.00", relates_to=11)
    )


def test_a_settled_refund_below_the_hold_releases_the_rest() -> None:
    scenario = (
        given(company(), HELD, refund_settled("act-01", "5.00"))
        .when_posted()
        .then(settled("5.00", held="20.00", relates_to=11))
    )
    assert scenario.budget("agent:A-7").remaining_minor == 19_500


def test_a_settled_refund_is_posted_once() -> None:
    scenario = (
        given(company(), HELD, refund_settled("act-01", "20.00"))
        .when_posted()
        .then(settled("20.00", held="20.00", relates_to=11))
    )
    scenario.when_posted().then()


def test_a_settled_refund_in_another_currency_settles_nothing() -> None:
    given(company(), HELD, refund_settled("act-01", "20.00 EUR")).when_posted().then()


def test_a_settled_refund_of_a_taken_action_posts_nothing() -> None:
    given(company(), taken("20.00"), refund_settled("act-01", "20.00")).when_posted().then()


def test_a_settled_refund_of_an_unknown_action_posts_nothing() -> None:
    given(company(), refund_settled("act-99", "20.00")).when_posted().then()


def test_a_hold_that_was_settled_meanwhile_is_not_settled_by_the_fact() -> None:
    paid = refund_settled("act-01", "20.00")
    given(company(), HELD, paid, settled("20.00", held="20.00")).when_posted().then()
