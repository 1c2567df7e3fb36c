"""The closing of a budget: granted = spent + reserved + remaining, and the rest lapses or is carried over."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from domain.budgets.budget import Budget
from domain.budgets.postings import opening
from tests.support.builders import NOW, RULES, new_budget, request_context


def balanced(budget: Budget) -> bool:
    return budget.granted_minor == budget.spent_minor + budget.reserved_minor + budget.remaining_minor


@given(st.integers(0, 20000))
def test_closing_a_budget_splits_the_remainder_into_carry_over_and_lapse(spent: int) -> None:
    budget = new_budget()
    budget.spent_minor = spent
    after, closed = opening(RULES, "agent:A-1", "2026-02", budget, request_context(1), "agent", "GBP")
    assert closed is not None
    assert closed.spent.minor + closed.lapsed.minor + closed.carried_over.minor == 20000
    assert closed.carried_over == after.carried_over
    assert after.carried_over.minor == min(5000, 20000 - spent)
    budget.record(closed, NOW + timedelta(days=30))
    assert budget.closed
    assert budget.remaining_minor == 0
    assert balanced(budget)


def test_carry_over_comes_only_from_the_period_directly_before() -> None:
    record, closed = opening(RULES, "agent:A-1", "2026-03", new_budget(), request_context(1), "agent", "GBP")
    assert record.carried_over.minor == 0
    assert closed is not None
    assert closed.lapsed.minor == 20000
