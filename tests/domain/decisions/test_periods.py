"""Periods: the opening of a budget closes the one before; holds and escalations go on; money lapses or is carried over."""

import pytest

from domain.events.decisions import BudgetOpened
from tests.support.decision_commands import action, grant, settle
from tests.support.decision_company import company, policy
from tests.support.decision_events import (
    ANY,
    Described,
    closed,
    fell_short,
    granted,
    held,
    moved,
    open_hold,
    opened,
    published,
    requested,
    settled,
    taken,
    why,
)
from tests.support.decision_scenarios import balance, given, rule

FEBRUARY = "2026-02-10T09:00:00Z"
TAKEN = taken("5.00", limits=ANY, authority="own")


@rule("opening a period closes the one before; the rest is carried over up to `carry_over`, or lapses")
def test_the_opening_of_a_period_closes_the_one_before() -> None:
    given(company(), taken("120.00", kind="fix", at=FEBRUARY)).when(action("5.00")).then(
        closed("agent:A-7", "2026-02", spent="120.00", lapsed="30.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00"),
        TAKEN,
        answer={"budget": balance("agent:A-7", "250.00", spent="5.00")},
    )


def test_a_rest_below_the_most_is_carried_over_whole() -> None:
    given(company(), taken("170.00", kind="fix", at=FEBRUARY)).when(action("5.00")).then(
        closed("agent:A-7", "2026-02", spent="170.00", carried_over="30.00"),
        opened("agent:A-7", "200.00", carried_over="30.00"),
        TAKEN,
    )


def test_a_role_without_carry_over_carries_nothing_over() -> None:
    earlier = taken("120.00", "M-1", at=FEBRUARY)
    given(company(), earlier).when(action("5.00", "M-1")).then(
        closed("agent:M-1", "2026-02", spent="120.00", lapsed="1880.00"),
        opened("agent:M-1", "2000.00"),
        taken("5.00", "M-1", limits=ANY, authority="own"),
    )


def test_only_the_period_directly_before_is_carried_over() -> None:
    earlier = taken("120.00", kind="fix", at="2026-01-10T09:00:00Z")
    given(company(), earlier).when(action("5.00")).then(
        closed("agent:A-7", "2026-01", spent="120.00", lapsed="80.00"), opened("agent:A-7", "200.00"), TAKEN
    )


@rule("reported actions that overdrew a budget are shown at its closing, and the next one does not pay them")
def test_an_overdrawn_budget_closes_with_its_overdraft() -> None:
    given(company(), taken("230.00", kind="fix", at=FEBRUARY)).when(action("5.00")).then(
        closed("agent:A-7", "2026-02", spent="230.00", overdrawn="30.00"), opened("agent:A-7", "200.00"), TAKEN
    )


@rule("holds and escalations go on in the new period")
def test_a_reserved_amount_stays_reserved_in_the_new_period() -> None:
    earlier = held("80.00", kind="fix", action_id="act-01", interaction_id="I-1", at=FEBRUARY)
    given(company(), earlier).when(action("5.00")).then(
        closed("agent:A-7", "2026-02", lapsed="70.00", carried_over="50.00", reserved="80.00"),
        opened("agent:A-7", "200.00", carried_over="50.00", holds=(open_hold("act-01", "80.00", "I-1"),)),
        TAKEN,
        answer={"budget": balance("agent:A-7", "330.00", spent="5.00", reserved="80.00")},
    )


def test_an_open_escalation_goes_on_in_the_new_period() -> None:
    given(company(), requested("90.00", at=FEBRUARY)).when(action("5.00")).then(
        closed("agent:A-7", "2026-02", lapsed="150.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00", escalations=("esc-1",)),
        TAKEN,
    )


def test_a_hold_that_went_on_counts_on_its_interaction() -> None:
    earlier = held("50.00", action_id="act-01", interaction_id="I-1", at=FEBRUARY)
    reason = why("per_interaction", limit="60.00", used="50.00", asked="10.01")
    given(company(), earlier).when(action("10.01", interaction_id="I-1")).then(
        closed("agent:A-7", "2026-02", lapsed="100.00", carried_over="50.00", reserved="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00", holds=(open_hold("act-01", "50.00", "I-1"),)),
        fell_short("10.01", "escalate", reason),
    )


def test_what_an_agent_gave_on_an_interaction_counts_in_the_next_period() -> None:
    earlier = taken("50.00", interaction_id="I-1", at=FEBRUARY)
    reason = why("per_interaction", limit="60.00", used="50.00", asked="10.01")
    given(company(), earlier).when(action("10.01", interaction_id="I-1")).then(
        closed("agent:A-7", "2026-02", spent="50.00", lapsed="100.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00"),
        fell_short("10.01", "escalate", reason),
    )


def test_a_refused_action_opens_its_period_too() -> None:
    given(company(), taken("150.00", kind="fix", at=FEBRUARY)).when(action("50.01")).then(
        closed("agent:A-7", "2026-02", spent="150.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00"),
        fell_short("50.01", "escalate", reasons=ANY),
    )


def test_an_error_opens_nothing() -> None:
    given(company(), taken("150.00", kind="fix", at=FEBRUARY)).when(action("5.00 EUR")).refused_with(
        "currency", "amount.currency"
    )


def test_a_role_that_changed_is_granted_at_the_next_opening() -> None:
    given(company(), taken("150.00", kind="fix", at=FEBRUARY), moved("A-7", "manager")).when(action("5.00")).then(
        closed("agent:A-7", "2026-02", spent="150.00", lapsed="50.00"),
        opened("agent:A-7", "2000.00"),
        taken("5.00", role="manager", limits=ANY, authority="own"),
    )


@rule("a new policy's limits count at once, its grants from the next opening on")
def test_a_new_grant_waits_for_the_next_opening() -> None:
    second = published(policy(agent={"budget": "300.00", "limits": {"refund": "60.00"}}), 2)
    given(company(), taken("5.00"), second).when(action("60.00")).then(
        taken("60.00", policy_version=2, limits=ANY, authority="own"),
        answer={"budget": balance("agent:A-7", "200.00", spent="65.00"), "policy_version": 2},
    )


def test_the_next_opening_grants_by_the_new_policy() -> None:
    second = published(policy(agent={"budget": "300.00"}), 2)
    given(company(), taken("200.00", kind="fix", at=FEBRUARY), second).when(action("5.00")).then(
        closed("agent:A-7", "2026-02", spent="200.00"),
        opened("agent:A-7", "300.00", policy_version=2),
        taken("5.00", policy_version=2, limits=ANY, authority="own"),
    )


# ---------------------------------------------------------------------- names and bounds


@pytest.mark.parametrize(
    ("period", "name"), [("day", "2026-03-10"), ("week", "2026-W11"), ("month", "2026-03"), ("quarter", "2026-Q1")]
)
def test_a_budget_is_for_the_period_of_the_policy(period: str, name: str) -> None:
    found = given(company(period=period)).when(action("5.00"))
    assert found.answer["budget"]["period"] == name


@pytest.mark.parametrize(("at", "name"), [("2026-03-31T22:59:59Z", "2026-03"), ("2026-03-31T23:00:00Z", "2026-04")])
def test_a_period_begins_in_the_time_zone_of_the_policy(at: str, name: str) -> None:
    """In summer time, London's midnight is 23:00 in UTC."""
    found = given(company()).when(action("5.00"), at=at)
    assert found.answer["budget"]["period"] == name


@rule("a new length of periods begins when the present period has ended")
def test_a_month_is_used_to_its_end_before_weeks_begin() -> None:
    weeks = published(policy(period="week"), 2)
    given(company(), taken("5.00"), weeks).when(action("5.00")).then(
        taken("5.00", period="2026-03", policy_version=2, limits=ANY, authority="own")
    )


def test_after_the_month_the_week_of_that_moment_opens() -> None:
    weeks = published(policy(period="week"), 2)
    given(company(), taken("150.00", kind="fix"), weeks).when(action("5.00"), at="2026-04-01T09:00:00Z").then(
        closed("agent:A-7", "2026-03", spent="150.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00", period="2026-W14", policy_version=2),
        taken("5.00", period="2026-W14", policy_version=2, limits=ANY, authority="own"),
    )


def test_days_go_on_until_a_month_begins_and_get_the_days_grant() -> None:
    days = company(period="day", agent={"budget": "20.00", "carry_over": None})
    day = opened("agent:A-7", "20.00", period="2026-03-09")
    months = published(policy(agent={"carry_over": None}), 2)
    given(days, day, months).when(action("5.00")).then(
        closed("agent:A-7", "2026-03-09", lapsed="20.00"),
        opened("agent:A-7", "20.00", period="2026-03-10", policy_version=2),
        taken("5.00", period="2026-03-10", policy_version=2, limits=ANY, authority="own"),
    )


def test_the_month_that_begins_after_days_has_its_own_grant() -> None:
    days = company(period="day", agent={"budget": "20.00", "carry_over": None})
    day = opened("agent:A-7", "20.00", period="2026-03-31", at="2026-03-31T09:00:00Z")
    months = published(policy(), 2)
    found = given(days, day, months).when(action("5.00"), at="2026-04-01T09:00:00Z")
    assert found.answer["budget"]["period"] == "2026-04"
    assert (found.events[1].period, found.events[1].granted.minor) == ("2026-04", 20_000)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("at", "name"), [("2026-03-10T03:59:00Z", "2026-03-09"), ("2026-03-10T04:00:00Z", "2026-03-10")]
)
def test_a_day_is_used_until_it_has_ended_in_the_old_and_the_new_time_zone(at: str, name: str) -> None:
    """In March New York is four hours behind UTC, once its summer time has begun."""
    american = company(period="day", time_zone="America/New_York")
    day = opened("agent:A-7", "200.00", period="2026-03-09")
    london = published(policy(period="day"), 2)
    found = given(american, day, london).when(action("5.00"), at=at)
    assert found.answer["budget"]["period"] == name


@rule("a period is used until it has ended in the time zones of the old and of the new policy")
def test_a_move_to_the_west_prolongs_the_day() -> None:
    """At nine in UTC it is 22:00 on the tenth in Auckland, and 22:00 on the ninth in Pago Pago."""
    auckland = company(period="day", time_zone="Pacific/Auckland")
    day = opened("agent:A-7", "200.00", period="2026-03-09", at="2026-03-08T12:00:00Z")
    samoa = published(policy(period="day", time_zone="Pacific/Pago_Pago"), 2)
    given(auckland, day, samoa).when(action("5.00")).then(
        taken("5.00", period="2026-03-09", policy_version=2, limits=ANY, authority="own")
    )


def test_after_a_move_to_the_west_the_next_day_opens_at_midnight_there() -> None:
    """Pago Pago is eleven hours behind UTC."""
    auckland = company(period="day", time_zone="Pacific/Auckland", agent={"carry_over": None})
    day = opened("agent:A-7", "200.00", period="2026-03-09", at="2026-03-08T12:00:00Z")
    samoa = published(policy(period="day", time_zone="Pacific/Pago_Pago", agent={"carry_over": None}), 2)
    given(auckland, day, samoa).when(action("5.00"), at="2026-03-10T11:00:00Z").then(
        closed("agent:A-7", "2026-03-09", lapsed="200.00"),
        opened("agent:A-7", "200.00", period="2026-03-10", policy_version=2),
        taken("5.00", period="2026-03-10", policy_version=2, limits=ANY, authority="own"),
    )


# ---------------------------------------------------------------------- clocks


def ahead(period: str, at: str) -> Described:
    """Return the opening of a budget by a decider whose clock ran ahead."""
    return opened("agent:A-7", "200.00", period=period, at=at)


@rule("a budget that a fast clock opened too early is closed, and opened again when its time comes")
def test_a_budget_that_was_opened_far_ahead_is_closed() -> None:
    given(company(), ahead("2026-04", "2026-04-20T09:00:00Z")).when(action("5.00")).then(
        closed("agent:A-7", "2026-04", lapsed="200.00"), opened("agent:A-7", "200.00"), TAKEN
    )


def test_a_budget_that_was_opened_a_moment_ahead_is_used() -> None:
    given(company(), ahead("2026-04", "2026-04-01T00:00:01Z")).when(action("5.00"), at="2026-03-31T22:59:58Z").then(
        taken("5.00", period="2026-04", limits=ANY, authority="own")
    )


def test_a_period_that_was_closed_too_early_is_opened_again_with_its_rest() -> None:
    earlier = (
        taken("30.00"),
        closed("agent:A-7", "2026-03", spent="30.00", lapsed="120.00", carried_over="50.00"),
        ahead("2026-04", "2026-04-20T09:00:00Z"),
    )
    given(company(), *earlier).when(action("5.00")).then(
        closed("agent:A-7", "2026-04", lapsed="200.00"),
        opened("agent:A-7", "120.00", reopened=True),
        TAKEN,
        answer={"budget": balance("agent:A-7", "150.00", spent="35.00")},
    )


def test_in_history_mode_no_time_before_the_open_period_is_accepted() -> None:
    earlier = taken("5.00")
    given(company(), earlier).when(action("5.00"), at=FEBRUARY, history=True).refused_with("clock", "time")


# ---------------------------------------------------------------------- currencies


EUROS = published(policy(currency="EUR"), 2)


@rule("a policy in another currency gives in its own currency from its beginning on")
def test_after_a_change_of_currency_the_old_one_is_an_error() -> None:
    given(company(), taken("5.00"), EUROS).when(action("5.00")).refused_with("currency", "amount.currency")


BUDGET_USED_UP = why("budget", limit="0.00 EUR", used="0.00 EUR", asked="5.00 EUR")
NOTHING_YET = opened(
    "agent:A-7",
    "0.00 EUR",
    carried_over="0.00 EUR",
    currency="EUR",
    policy_version=2,
    granted_in="GBP",
)


@rule("a policy in another currency opens no second budget for the same time; it is granted from the next period on")
def test_after_a_change_of_currency_a_period_has_no_second_grant() -> None:
    given(company(), taken("5.00"), EUROS).when(action("5.00 EUR")).then(
        NOTHING_YET,
        fell_short("5.00 EUR", "escalate", BUDGET_USED_UP, policy_version=2),
        answer={"outcome": "escalate"},
    )


def test_an_agent_without_a_budget_yet_is_granted_in_the_new_currency() -> None:
    given(company(), EUROS).when(action("5.00 EUR")).then(
        opened("agent:A-7", "200.00 EUR", carried_over="0.00 EUR", currency="EUR", policy_version=2),
        taken("5.00 EUR", policy_version=2, limits=ANY, authority="own"),
    )


def test_the_next_period_is_granted_in_the_new_currency() -> None:
    earlier = taken("5.00", at=FEBRUARY)
    given(company(), earlier, EUROS).when(action("5.00 EUR")).then(
        opened("agent:A-7", "200.00 EUR", carried_over="0.00 EUR", currency="EUR", policy_version=2),
        taken("5.00 EUR", policy_version=2, limits=ANY, authority="own"),
    )


def test_after_a_change_back_the_first_budget_goes_on() -> None:
    back = published(policy(), 3)
    given(company(), taken("5.00"), EUROS, NOTHING_YET, back).when(action("50.00")).then(
        taken("50.00", policy_version=3, limits=ANY, authority="own"),
        answer={"budget": balance("agent:A-7", "200.00", spent="55.00")},
    )


def test_shorter_periods_in_another_currency_wait_for_the_end_of_the_long_one() -> None:
    days = published(policy(currency="EUR", period="day"), 2)
    scenario = given(company(), taken("5.00"), days)
    for at, granted_minor in (
        ("2026-03-11T09:00:00Z", 0),
        ("2026-03-31T09:00:00Z", 0),
        ("2026-04-01T09:00:00Z", 20000),
    ):
        first = scenario.when(action("1.00 EUR", agent_id="A-7"), at=at).events[0]
        assert isinstance(first, BudgetOpened)
        assert first.granted.minor == granted_minor, at


def test_a_team_has_no_second_pool() -> None:
    pooled = opened("team:doorstep", "40.00")
    found = given(company(), pooled, EUROS).when(grant("team:doorstep", "1.00 EUR"))
    assert isinstance(found.events[0], BudgetOpened)
    assert found.events[0].granted.minor == 0


def test_after_a_change_of_currency_goodwill_in_the_old_one_does_not_count_for_the_customer() -> None:
    earlier = taken("90.00", "A-8", customer_id="C-9", action_id="act-08")
    found = given(company(), earlier, EUROS).when(action("50.00 EUR", customer_id="C-9"))
    assert found.answer["outcome"] == "taken"


def test_after_a_change_of_currency_a_hold_is_settled_in_the_old_one() -> None:
    given(company(), held("20.00", action_id="act-01"), EUROS).when(settle("act-01")).then(
        settled("20.00", held="20.00")
    )


def test_in_the_next_period_the_old_currency_gets_no_grant() -> None:
    earlier = held("20.00", action_id="act-01", at=FEBRUARY)
    given(company(), earlier, EUROS).when(settle("act-01")).then(
        closed("agent:A-7", "2026-02", lapsed="180.00", reserved="20.00"),
        opened("agent:A-7", "0.00", policy_version=2, holds=(open_hold("act-01", "20.00"),)),
        settled("20.00", held="20.00"),
    )


LEVA = {"currency": "BGN", "effective_from": "2025-01-01T00:00:00Z"}
"""The lev ended on 31 January 2026; until then its budgets may be opened."""


def test_a_budget_that_was_opened_in_a_valid_currency_is_used_to_its_end() -> None:
    quarter = opened(
        "agent:A-7",
        "200.00 BGN",
        carried_over="0.00 BGN",
        currency="BGN",
        period="2026-Q1",
        at="2026-01-10T09:00:00Z",
    )
    found = given(company(**LEVA, period="quarter"), quarter).when(action("5.00 BGN"))
    assert found.answer["outcome"] == "taken"


def test_no_budget_is_opened_in_a_currency_that_has_ended() -> None:
    given(company(**LEVA)).when(action("5.00 BGN")).refused_with("invalid", "amount.currency")


def test_no_grant_is_made_in_a_currency_that_has_ended() -> None:
    given(company(**LEVA)).when(grant("agent:A-7", "5.00 BGN")).refused_with("invalid", "amount.currency")


def test_a_grant_in_the_currency_of_the_policy_opens_its_budget() -> None:
    given(company(), taken("5.00"), EUROS).when(grant("agent:A-7", "50.00 EUR")).then(
        NOTHING_YET,
        granted("agent:A-7", "50.00 EUR"),
    )
