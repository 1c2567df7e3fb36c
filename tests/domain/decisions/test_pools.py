"""Pools: an agent's budget that does not reach draws on the pool of the agent's team."""

import pytest

from domain.commands import Preview
from domain.decisions.streams import BudgetKey
from tests.support.decision_commands import action, preview
from tests.support.decision_company import company
from tests.support.decision_events import ANY, Described, drawn, fell_short, joined, met, opened, paid, taken, why
from tests.support.decision_scenarios import balance, given, rule

SPENT = taken("200.00", "D-1", kind="fix")
POOL_OPENED = opened("team:doorstep", "40.00")


def drawn_by_another(amount: str) -> tuple[Described, ...]:
    """Return a draw of D-2 on the pool."""
    return (
        drawn("team:doorstep", "out", "agent:D-2", amount, action_id="act-02"),
        drawn("agent:D-2", "in", "team:doorstep", amount, action_id="act-02"),
    )


@rule("an empty budget draws on the team's pool, a step at a time")
def test_an_empty_budget_draws_one_step_on_the_teams_pool() -> None:
    given(company(), SPENT).when(action("20.00", "D-1")).then(
        POOL_OPENED,
        drawn("team:doorstep", "out", "agent:D-1", "30.00"),
        drawn("agent:D-1", "in", "team:doorstep", "30.00"),
        taken("20.00", "D-1", authority="own", limits=met(per_action=("50.00", "0.00"), budget=("200.00", "200.00"))),
        answer={"budget": balance("agent:D-1", "230.00", spent="220.00")},
    )


def test_a_budget_that_nearly_reaches_draws_a_whole_step_too() -> None:
    given(company(), taken("195.00", "D-1", kind="fix")).when(action("20.00", "D-1")).then(
        POOL_OPENED,
        drawn("team:doorstep", "out", "agent:D-1", "30.00"),
        drawn("agent:D-1", "in", "team:doorstep", "30.00"),
        taken("20.00", "D-1", limits=ANY, authority="own"),
        answer={"budget": balance("agent:D-1", "230.00", spent="215.00")},
    )


def test_an_action_may_use_exactly_one_draw() -> None:
    given(company(), SPENT).when(action("30.00", "D-1")).then(
        POOL_OPENED,
        drawn("team:doorstep", "out", "agent:D-1", "30.00"),
        drawn("agent:D-1", "in", "team:doorstep", "30.00"),
        taken("30.00", "D-1", limits=ANY, authority="own"),
        answer={"budget": balance("agent:D-1", "230.00", spent="230.00")},
    )


def test_a_budget_that_reaches_draws_nothing() -> None:
    given(company(), taken("150.00", "D-1", kind="fix")).when(action("50.00", "D-1")).then(
        taken("50.00", "D-1", limits=ANY, authority="own")
    )


@rule("without `draw_at_most`, exactly the missing amount is drawn")
def test_without_a_step_exactly_the_missing_amount_is_drawn() -> None:
    given(company(teams={"doorstep": {"pool": "40.00"}}), taken("195.00", "D-1", kind="fix")).when(
        action("20.00", "D-1")
    ).then(
        POOL_OPENED,
        drawn("team:doorstep", "out", "agent:D-1", "15.00"),
        drawn("agent:D-1", "in", "team:doorstep", "15.00"),
        taken("20.00", "D-1", limits=ANY, authority="own"),
        answer={"budget": balance("agent:D-1", "215.00", spent="215.00")},
    )


def test_the_last_draw_takes_the_rest_of_the_pool() -> None:
    given(company(), SPENT, *drawn_by_another("15.00")).when(action("20.00", "D-1")).then(
        drawn("team:doorstep", "out", "agent:D-1", "25.00"),
        drawn("agent:D-1", "in", "team:doorstep", "25.00"),
        taken("20.00", "D-1", limits=ANY, authority="own"),
    )


@rule("a draw is at most `draw_at_most` and the rest of the pool")
def test_an_action_above_one_draw_is_escalated() -> None:
    given(company(), SPENT).when(action("30.01", "D-1")).then(
        fell_short(
            "30.01",
            "escalate",
            why("budget", limit="200.00", used="200.00", asked="30.01"),
            why("pool", limit="40.00", used="0.00", asked="30.01"),
        )
    )


def test_an_action_above_the_rest_of_the_pool_is_escalated() -> None:
    given(company(), SPENT, *drawn_by_another("30.00")).when(action("10.01", "D-1")).then(
        fell_short(
            "10.01",
            "escalate",
            why("budget", limit="200.00", used="200.00", asked="10.01"),
            why("pool", limit="10.00", used="0.00", asked="10.01"),
        )
    )


def test_an_empty_pool_lends_nothing() -> None:
    given(company(), SPENT, *drawn_by_another("40.00")).when(action("0.01", "D-1")).then(
        fell_short(
            "0.01",
            "escalate",
            why("budget", limit="200.00", used="200.00", asked="0.01"),
            why("pool", limit="0.00", used="0.00", asked="0.01"),
        )
    )


def test_a_team_without_a_pool_lends_nothing() -> None:
    given(company(), taken("200.00", kind="fix")).when(action("20.00")).then(
        fell_short("20.00", "escalate", why("budget", limit="200.00", used="200.00", asked="20.00"))
    )


def test_a_draw_does_not_lift_the_limit_of_one_action() -> None:
    given(company(), taken("170.00", "D-1", kind="fix")).when(action("50.01", "D-1")).then(
        fell_short("50.01", "escalate", why("per_action", limit="50.00", used="0.00", asked="50.01"))
    )


def test_the_askedsays_which_teams_pool_is_meant() -> None:
    teams = {"doorstep": {"pool": "40.00"}, "market": {"pool": "70.00"}}
    both = joined("D-9", "agent", "doorstep", "market")
    given(company(teams=teams), both, taken("200.00", "D-9", kind="fix")).when(
        action("20.00", "D-9", team_id="market")
    ).then(
        opened("team:market", "70.00"),
        drawn("team:market", "out", "agent:D-9", "20.00"),
        drawn("agent:D-9", "in", "team:market", "20.00"),
        taken("20.00", "D-9", limits=ANY, authority="own"),
    )


def test_a_correction_draws_on_no_pool() -> None:
    given(company(), paid("O-1", "20.00"), SPENT).when(action("20.00", "D-1", basis="correction", order_id="O-1")).then(
        taken("20.00", "D-1", limits=ANY, authority="own", owed="20.00")
    )


def test_the_part_of_a_correction_that_is_not_owed_draws_on_the_pool() -> None:
    given(company(), paid("O-1", "15.00"), SPENT).when(action("20.00", "D-1", basis="correction", order_id="O-1")).then(
        opened("team:doorstep", "40.00"),
        drawn("team:doorstep", "out", "agent:D-1", "30.00"),
        drawn("agent:D-1", "in", "team:doorstep", "30.00"),
        taken("20.00", "D-1", limits=ANY, authority="own", owed="15.00"),
    )


def test_the_amount_available_includes_one_draw() -> None:
    given(company(), SPENT).when(preview(agent_id="D-1")).then(
        answer={"available": {"amount": "30.00", "currency": "GBP"}}
    )


def test_a_preview_of_a_draw_moves_no_money() -> None:
    given(company(), SPENT).when(preview("20.00", "D-1")).then(
        answer={"outcome": "taken", "budget": balance("agent:D-1", "200.00", spent="200.00")}
    )


# ---------------------------------------------------------------------- streams that are read


AGENTS_BUDGET, POOL = BudgetKey("agent:D-1", "GBP"), BudgetKey("team:doorstep", "GBP")


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        (action("50.00", "D-1"), {AGENTS_BUDGET}),
        (action("900.00", "D-1", basis="correction"), {AGENTS_BUDGET, POOL}),
        (action("200.01", "D-1", kind="fix"), {AGENTS_BUDGET, POOL}),
        (preview(agent_id="D-1"), {AGENTS_BUDGET, POOL}),
        (action("900.00", kind="fix"), {BudgetKey("agent:A-7", "GBP")}),
    ],
)
def test_the_pool_is_read_only_where_the_budget_does_not_reach(asked: Preview, read: set[BudgetKey]) -> None:
    assert given(company()).when(asked).loaded == read
