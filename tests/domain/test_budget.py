"""A budget keeps granted = spent + reserved + remaining, and a decision never overspends it."""

from datetime import datetime, timedelta
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from domain.budgets.budget import Budget
from domain.budgets.postings import granted, opening
from domain.commands import ActionRequest, GrantRequest
from domain.decisions.authority import fell_short, judge, taken
from domain.events.facts import Kind
from domain.money import Money
from domain.serialization import encode
from tests.support.builders import NOW, RULES, decision_context, new_budget, request_context


def balanced(budget: Budget) -> bool:
    return budget.granted_minor == budget.spent_minor + budget.reserved_minor + budget.remaining_minor


steps = st.lists(
    st.tuples(st.sampled_from(["refund", "fix", "credit", "grant"]), st.integers(0, 8000), st.sampled_from("IJK"))
)


@given(steps)
def test_no_sequence_of_decisions_overspends(sequence: list[tuple[str, int, str]]) -> None:
    budget = new_budget()
    (record, _) = opening(RULES, "agent:A-1", "2026-01", None, request_context(0), "agent", "GBP")
    records: list[tuple[Any, datetime]] = [(record, NOW)]

    def happened(record: Any) -> None:
        budget.record(record, NOW)
        records.append((record, NOW))

    for number, (kind, minor, interaction) in enumerate(sequence):
        amount = Money(minor, "GBP")
        if kind == "grant":
            if minor:
                request = GrantRequest(
                    request_id="g", operation="grant", holder="agent:A-1", amount=amount, granted_by="M", reason="x"
                )
                happened(granted(request, budget, request_context(number)))
        else:
            asked = ActionRequest(
                request_id="r",
                agent_id="A-1",
                kind=cast("Kind", kind),
                amount=amount,
                reason="late",
                interaction_id=interaction,
            )
            asking = decision_context(asked, budget=budget)
            verdict = judge(asking, amount)
            if verdict.outcome == "taken":
                assert minor <= budget.remaining_minor
                happened(taken(asking, 1, verdict, request_context(number), "act-1"))
            else:
                assert verdict.reasons
                happened(fell_short(asked, amount, verdict, request_context(number), asking=asking))
        assert balanced(budget)
        assert budget.remaining_minor >= 0
        assert all(spent <= 6000 for spent in budget.by_interaction.values())
    replayed = Budget.from_records(records)
    assert encode(replayed.balance()) == encode(budget.balance())
    assert replayed.version == budget.version


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
