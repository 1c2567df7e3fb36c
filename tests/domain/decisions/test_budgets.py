"""Grants and transfers of budgets."""

import pytest

from domain.serialization import encode
from tests.support.decision_commands import grant, transfer
from tests.support.decision_company import STAFF, company
from tests.support.decision_events import closed, granted, held, opened, taken, transferred
from tests.support.decision_scenarios import balance, given, rule

OPENED = opened("agent:A-7", "200.00")


@rule("a grant is added to the present budget")
def test_a_grant_is_added_to_the_present_budget() -> None:
    given(company(), taken("20.00")).when(grant("agent:A-7", "50.00")).then(
        granted("agent:A-7", "50.00"),
        answer={"outcome": "done", "budget": balance("agent:A-7", "250.00", spent="20.00")},
    )


def test_the_answer_of_a_grant_has_the_documented_form() -> None:
    found = given(company(), taken("20.00")).when(grant("agent:A-7", "50.00"))
    found.then(granted("agent:A-7", "50.00"))
    assert encode(found.answer).decode() == (
        '{"outcome":"done","position":11,"budget":{"holder":"agent:A-7","period":"2026-03",'
        '"granted":{"amount":"250.00","currency":"GBP"},"spent":{"amount":"20.00","currency":"GBP"},'
        '"reserved":{"amount":"0.00","currency":"GBP"},"remaining":{"amount":"230.00","currency":"GBP"}}}'
    )


def test_a_grant_opens_a_budget_that_is_not_open_yet() -> None:
    given(company()).when(grant("agent:A-7", "50.00")).then(
        OPENED, granted("agent:A-7", "50.00"), answer={"budget": balance("agent:A-7", "250.00")}
    )


def test_a_grant_records_its_giver_and_its_reason() -> None:
    given(company()).when(grant("agent:A-7", "50.00", granted_by="X-1", reason="the storm")).then(
        OPENED, granted("agent:A-7", "50.00", granted_by="X-1", reason="the storm")
    )


def test_a_team_is_granted_more_for_its_pool() -> None:
    given(company()).when(grant("team:doorstep", "50.00")).then(
        opened("team:doorstep", "40.00"),
        granted("team:doorstep", "50.00"),
        answer={"budget": balance("team:doorstep", "90.00")},
    )


def test_a_team_without_a_pool_gets_a_budget_by_a_grant() -> None:
    given(company()).when(grant("team:phone", "50.00")).then(
        opened("team:phone", "0.00"), granted("team:phone", "50.00"), answer={"budget": balance("team:phone", "50.00")}
    )


def test_a_grant_is_above_zero() -> None:
    given(company()).when(grant("agent:A-7", "0.00")).refused_with("invalid", "amount.amount")


def test_a_grant_is_in_the_currency_of_the_budget() -> None:
    given(company()).when(grant("agent:A-7", "50.00 EUR")).refused_with("currency", "amount.currency")


@pytest.mark.parametrize("holder", ["A-7", "person:A-7", "agent:", "team:"])
def test_a_holder_is_an_agent_or_a_team(holder: str) -> None:
    given(company()).when(grant(holder, "50.00")).refused_with("invalid", "holder")


def test_an_unknown_agent_is_granted_nothing() -> None:
    given(company()).when(grant("agent:A-99", "50.00")).refused_with("unknown_agent", "holder")


def test_without_a_policy_there_are_no_budgets_to_grant_to() -> None:
    given(STAFF).when(grant("agent:A-7", "50.00")).refused_with("no_policy")


def test_a_grant_in_a_new_period_is_not_for_the_last_one() -> None:
    given(company(), taken("20.00", at="2026-02-10T09:00:00Z")).when(grant("agent:A-7", "50.00")).then(
        closed("agent:A-7", "2026-02", spent="20.00", lapsed="130.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00"),
        granted("agent:A-7", "50.00"),
        answer={"budget": balance("agent:A-7", "300.00")},
    )


# ---------------------------------------------------------------------- transfers


@rule("a transfer moves money that its giver has left")
def test_a_transfer_moves_money_from_one_holder_to_another() -> None:
    given(company(), opened("agent:A-7", "200.00")).when(transfer("agent:A-7", "agent:A-8", "25.00")).then(
        transferred("agent:A-7", "out", "agent:A-8", "25.00"),
        opened("agent:A-8", "200.00"),
        transferred("agent:A-8", "in", "agent:A-7", "25.00"),
        answer={"outcome": "done", "budget": balance("agent:A-7", "175.00")},
    )


def test_the_taker_of_a_transfer_has_more() -> None:
    scenario = (
        given(company(), opened("agent:A-8", "200.00"))
        .when(transfer("agent:A-7", "agent:A-8", "25.00"))
        .then(
            OPENED,
            transferred("agent:A-7", "out", "agent:A-8", "25.00"),
            transferred("agent:A-8", "in", "agent:A-7", "25.00"),
        )
    )
    assert scenario.budget("agent:A-8").remaining_minor == 22_500


def test_an_agent_may_transfer_to_the_pool_of_a_team() -> None:
    given(company(), OPENED, opened("team:doorstep", "40.00")).when(
        transfer("agent:A-7", "team:doorstep", "25.00")
    ).then(
        transferred("agent:A-7", "out", "team:doorstep", "25.00"),
        transferred("team:doorstep", "in", "agent:A-7", "25.00"),
    )


def test_all_that_is_left_may_be_transferred() -> None:
    given(company(), taken("150.00", kind="fix"), opened("agent:A-8", "200.00")).when(
        transfer("agent:A-7", "agent:A-8", "50.00")
    ).then(
        transferred("agent:A-7", "out", "agent:A-8", "50.00"),
        transferred("agent:A-8", "in", "agent:A-7", "50.00"),
        answer={"budget": balance("agent:A-7", "150.00", spent="150.00")},
    )


@rule("no more than the rest of a budget is transferred")
def test_more_than_is_left_is_not_transferred() -> None:
    given(company(), taken("150.00", kind="fix")).when(transfer("agent:A-7", "agent:A-8", "50.01")).refused_with(
        "insufficient", "amount.amount"
    )


def test_a_reserved_amount_is_not_transferred() -> None:
    given(company(), held("150.00", kind="fix")).when(transfer("agent:A-7", "agent:A-8", "50.01")).refused_with(
        "insufficient", "amount.amount"
    )


def test_nothing_is_transferred_from_an_overdrawn_budget() -> None:
    given(company(), taken("210.00", kind="fix")).when(transfer("agent:A-7", "agent:A-8", "0.01")).refused_with(
        "insufficient", "amount.amount"
    )


def test_a_transfer_goes_to_another_holder() -> None:
    given(company()).when(transfer("agent:A-7", "agent:A-7", "25.00")).refused_with("invalid", "to_holder")


def test_a_transfer_is_above_zero() -> None:
    given(company()).when(transfer("agent:A-7", "agent:A-8", "0.00")).refused_with("invalid", "amount.amount")


def test_a_transfer_is_in_the_currency_of_the_budget() -> None:
    given(company()).when(transfer("agent:A-7", "agent:A-8", "5.00 EUR")).refused_with("currency", "amount.currency")


def test_an_unknown_agent_transfers_nothing() -> None:
    given(company()).when(transfer("agent:A-99", "agent:A-8", "5.00")).refused_with("unknown_agent", "holder")


def test_nothing_is_transferred_to_an_unknown_agent() -> None:
    given(company()).when(transfer("agent:A-7", "agent:A-99", "5.00")).refused_with("unknown_agent", "to_holder")


def test_without_a_policy_nothing_is_transferred() -> None:
    given(STAFF).when(transfer("agent:A-7", "agent:A-8", "5.00")).refused_with("no_policy")
