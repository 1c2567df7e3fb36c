"""Owed amounts: entitlement and correction need no authority as far as other events show that they are owed."""

from typing import Any

import pytest

from domain.commands import ActionRequest
from domain.decisions.decision import Retry
from tests.support.decision_commands import action, approve, ask, preview, reverse, settle
from tests.support.decision_company import STAFF, company, policy
from tests.support.decision_events import (
    ANY,
    Described,
    approved,
    corrected,
    fell_short,
    held,
    met,
    opened,
    order_charged,
    paid,
    published,
    reported,
    requested,
    returned,
    reversal,
    settled,
    taken,
    voided,
    why,
)
from tests.support.decision_scenarios import balance, given, rule

SMALL = company(agent={"budget": "20.00", "per_customer": None})
"""A-7 has little of its own, so that the part that counts as goodwill shows."""
OPENED = opened("agent:A-7", "20.00")
PAID = paid("O-1", "60.00")


def correction(amount: str, **fields: Any) -> ActionRequest:
    """Return a request for a correction on the order O-1."""
    return action(amount, **({"basis": "correction", "order_id": "O-1"} | fields))


def owed_of(*events: Described, amount: str = "100.00", **fields: Any) -> str:
    """Return the part of a correction that is shown as owed, in words, after these events."""
    found = given(SMALL, *events).when(preview(amount, **({"basis": "correction", "order_id": "O-1"} | fields)))
    return str(found.answer["explanation"]).partition(" of ")[0]


@rule("the amount that another source recorded as paid for the order is owed, and needs no authority")
def test_what_was_paid_for_the_order_is_owed() -> None:
    given(SMALL, PAID).when(correction("60.00")).then(
        OPENED,
        taken("60.00", owed="60.00", authority="own", limits=met(owed=("60.00", "0.00"))),
        answer={"explanation": "60.00 of 60.00 is shown as owed", "budget": balance("agent:A-7", "20.00")},
    )


@rule("an amount that is not shown as owed counts as goodwill")
def test_a_penny_more_than_was_paid_counts_as_goodwill() -> None:
    given(SMALL, PAID).when(correction("60.01")).then(
        OPENED,
        taken("60.01", owed="60.00", authority="own", limits=ANY),
        answer={
            "explanation": "60.00 of 60.01 is shown as owed; the rest counts as goodwill",
            "budget": balance("agent:A-7", "20.00", spent="0.01"),
        },
    )


@rule("the part that is not owed meets the limits of goodwill")
def test_the_part_that_is_not_owed_meets_every_limit() -> None:
    proof = why("owed", limit="60.00", used="0.00", asked="80.01")
    budget = why("budget", limit="20.00", used="0.00", asked="20.01")
    given(SMALL, PAID).when(correction("80.01")).then(
        OPENED, fell_short("80.01", "escalate", proof, budget, owed="60.00"), answer={"outcome": "escalate"}
    )


def test_exactly_the_owed_part_and_the_rest_of_the_budget_may_be_given() -> None:
    assert given(SMALL, PAID).when(correction("80.00")).answer["outcome"] == "taken"


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
@pytest.mark.parametrize("order", ["O-2", None])
def test_without_a_recorded_payment_nothing_is_owed(basis: str, order: str | None) -> None:
    found = given(SMALL, PAID).when(correction("20.01", basis=basis, order_id=order))
    assert (found.answer["outcome"], found.answer["explanation"]) == (
        "escalate",
        "0.00 of 20.01 is shown as owed; the rest counts as goodwill",
    )


@rule("a source proves nothing to itself")
def test_a_payment_that_the_requesting_source_recorded_proves_nothing() -> None:
    proof = why("owed", limit="0.00", used="0.00", asked="60.00")
    given(SMALL, paid("O-1", "60.00", source="crm")).when(correction("60.00")).then(
        OPENED,
        fell_short(
            "60.00",
            "escalate",
            proof,
            why("per_action", limit="50.00", used="0.00", asked="60.00"),
            why("budget", limit="20.00", used="0.00", asked="60.00"),
            owed="0.00",
        ),
    )


def test_payments_of_one_source_add_up_and_those_of_two_do_not() -> None:
    assert owed_of(PAID, paid("O-1", "15.00")) == "75.00"
    assert owed_of(PAID, paid("O-1", "70.00", source="shop")) == "70.00"


@pytest.mark.parametrize(
    "before",
    [
        returned("O-1", "12.00"),
        taken("12.00", "A-8", order_id="O-1", customer_id="C-1"),
        taken("12.00", "A-8", order_id="O-1", basis="entitlement", owed="12.00"),
        held("12.00", "A-8", order_id="O-1", customer_id="C-1"),
        reported("12.00", "A-8", order_id="O-1", customer_id="C-1"),
        reported("12.00", "A-8", order_id="O-1", basis="correction"),
    ],
    ids=["returned", "goodwill", "entitlement", "held", "reported", "reported correction"],
)
def test_what_was_given_back_on_any_basis_is_owed_no_more(before: Described) -> None:
    assert owed_of(PAID, before) == "48.00"


def test_a_return_without_an_order_lowers_nothing() -> None:
    assert owed_of(PAID, returned(None, "12.00")) == "60.00"


def test_an_action_for_another_order_lowers_nothing() -> None:
    assert owed_of(PAID, taken("12.00", "A-8", order_id="O-2")) == "60.00"


def test_a_voided_hold_is_owed_again() -> None:
    hold = held("12.00", "A-8", order_id="O-1", action_id="act-01")
    assert owed_of(PAID, hold, voided("12.00", "changed their mind", agent_id="A-8")) == "60.00"


def test_a_hold_counts_as_it_was_settled() -> None:
    hold = held("12.00", "A-8", order_id="O-1", action_id="act-01")
    assert owed_of(PAID, hold, settled("10.00", held="12.00", agent_id="A-8")) == "50.00"


@pytest.mark.parametrize(("recovered", "owed"), [(True, "60.00"), (False, "48.00")])
def test_what_was_reversed_is_owed_again_only_if_it_was_recovered(recovered: bool, owed: str) -> None:
    gave = taken("12.00", "A-8", order_id="O-1", action_id="act-01")
    undone = reversal("12.00", agent_id="A-8", relates_to=10, recovered=recovered)
    assert owed_of(PAID, gave, undone) == owed


def test_more_given_back_than_paid_leaves_nothing_owed() -> None:
    assert owed_of(PAID, returned("O-1", "70.00")) == "0.00"


def test_a_corrected_payment_counts_as_it_was_corrected() -> None:
    told = paid("O-1", "60.00", source="crm")
    right = {"order_id": "O-1", "total": {"amount": "45.00", "currency": "GBP"}}
    again = {"order_id": "O-1", "total": {"amount": "50.00", "currency": "GBP"}}
    for data, owed in (((right,), "45.00"), ((right, again), "50.00"), ((None,), "0.00")):
        scenario = given(SMALL, told, *(corrected(9, one) for one in data))
        found = scenario.when(preview("100.00", basis="correction", order_id="O-1"), source="desk")
        assert str(found.answer["explanation"]).startswith(owed)


def test_a_payment_that_is_corrected_to_another_order_moves() -> None:
    other = {"order_id": "O-2", "total": {"amount": "60.00", "currency": "GBP"}}
    scenario = given(SMALL, paid("O-1", "60.00", source="crm"), corrected(9, other))
    for order, owed in (("O-1", "0.00"), ("O-2", "60.00")):
        found = scenario.when(preview("60.00", basis="correction", order_id=order), source="desk")
        assert str(found.answer["explanation"]).startswith(owed)


def test_a_payment_that_comes_late_changes_no_decision_before_it() -> None:
    found = given(SMALL).when(correction("20.00"))
    scenario = found.then(OPENED, taken("20.00", owed="0.00", authority="own", limits=ANY))
    scenario.add(PAID)
    found = scenario.when(correction("40.01", request_id="r-2"))
    assert (found.answer["outcome"], found.answer["explanation"]) == (
        "escalate",
        "40.00 of 40.01 is shown as owed; the rest counts as goodwill",
    )


# ---------------------------------------------------------------------- currencies and kinds


def test_a_payment_in_another_currency_is_owed_in_that_currency() -> None:
    given(SMALL, paid("O-1", "60.00 EUR")).when(correction("60.00 EUR")).then(
        OPENED, taken("60.00 EUR", owed="60.00 EUR", authority="own", limits=ANY)
    )


def test_what_is_not_owed_is_given_in_the_currency_of_the_policy_alone() -> None:
    given(SMALL, PAID).when(correction("5.00 EUR")).refused_with("currency", "amount.currency")
    given(SMALL, paid("O-1", "60.00 EUR")).when(correction("60.01 EUR")).refused_with("currency", "amount.currency")


def test_the_part_that_is_not_owed_needs_a_kind_of_the_role() -> None:
    found = given(SMALL, PAID).when(correction("60.01", kind="credit"))
    assert [one.rule for one in found.answer["reasons"]] == ["owed", "kind"]
    assert given(SMALL, PAID).when(correction("60.00", kind="credit")).answer["outcome"] == "taken"


# ---------------------------------------------------------------------- basis_limits


def limited(**limits: object) -> tuple[Described, ...]:
    """Return the company with amounts of refunds that need no proof, by basis."""
    return company(agent={"budget": "20.00", "per_customer": None}, basis_limits={"agent": {"refund": limits}})


@rule("`basis_limits` name amounts that need no proof")
def test_an_amount_within_basis_limits_needs_no_proof() -> None:
    given(limited(correction="50.00")).when(correction("50.00", order_id=None)).then(
        OPENED,
        taken("50.00", order_id=None, owed="50.00", authority="own", limits=met(basis_limit=("50.00", "0.00"))),
        answer={"explanation": "50.00 of 50.00 needs no proof by basis_limits"},
    )


def test_a_penny_more_than_basis_limits_counts_as_goodwill() -> None:
    given(limited(correction="50.00")).when(correction("50.01")).then(
        OPENED,
        taken("50.01", owed="50.00", authority="own", limits=ANY),
        answer={"budget": balance("agent:A-7", "20.00", spent="0.01")},
    )


def test_basis_limits_take_the_place_of_the_proof() -> None:
    found = given(limited(correction="0.00"), PAID).when(correction("20.01"))
    assert found.answer["outcome"] == "escalate"


def test_basis_limits_of_one_basis_say_nothing_about_another() -> None:
    found = given(limited(correction="unlimited")).when(correction("20.01", basis="entitlement"))
    assert found.answer["outcome"] == "escalate"


def test_basis_limits_may_be_unlimited() -> None:
    assert given(limited(correction="unlimited")).when(correction("90000.00")).answer["outcome"] == "taken"


# ---------------------------------------------------------------------- previews


def test_the_amount_available_has_the_owed_part_and_the_goodwill() -> None:
    found = given(SMALL, PAID).when(preview(basis="correction", order_id="O-1"))
    assert found.answer["available"] == {"amount": "80.00", "currency": "GBP"}


def test_nothing_is_named_as_available_where_the_amount_is_unlimited() -> None:
    found = given(limited(correction="unlimited")).when(preview(basis="correction"))
    assert (found.answer["outcome"], "available" in found.answer) == ("taken", False)


# ---------------------------------------------------------------------- the life of a partly owed action


PARTLY = taken("30.00", owed="18.00", order_id="O-1", basis="correction", action_id="act-01")


def test_a_reversal_gives_back_first_what_counted_as_goodwill() -> None:
    given(SMALL, paid("O-1", "18.00"), PARTLY).when(reverse("act-01", "20.00")).then(
        reversal("20.00", owed="8.00", basis="correction", relates_to=11),
        answer={"budget": balance("agent:A-7", "20.00")},
    )


def test_a_second_reversal_restores_nothing_more() -> None:
    once = reversal("12.00", owed="0.00", basis="correction", relates_to=11)
    given(SMALL, paid("O-1", "18.00"), PARTLY, once).when(reverse("act-01")).then(
        reversal("18.00", owed="18.00", basis="correction", relates_to=11),
        answer={"budget": balance("agent:A-7", "20.00")},
    )


def test_a_reversal_without_recovery_restores_nothing() -> None:
    given(SMALL, PARTLY).when(reverse("act-01", recovered=False)).then(
        reversal("30.00", owed="18.00", basis="correction", relates_to=10, recovered=False),
        answer={"budget": balance("agent:A-7", "20.00", spent="12.00")},
    )


def test_a_hold_reserves_what_counts_as_goodwill_and_settles_the_owed_part_first() -> None:
    hold = held("30.00", owed="18.00", order_id="O-1", basis="correction", action_id="act-01")
    scenario = given(SMALL, hold)
    assert scenario.budget("agent:A-7").reserved_minor == 1_200
    scenario.when(settle("act-01", "20.00")).then(
        settled("20.00", owed="18.00", held="12.00", basis="correction"),
        answer={"budget": balance("agent:A-7", "20.00", spent="2.00")},
    )


def test_the_goodwill_part_counts_for_the_customer() -> None:
    gave = taken("130.00", "A-8", owed="40.00", basis="correction", order_id="O-1", customer_id="C-9")
    assert given(company(), gave).when(action("10.01", customer_id="C-9")).answer["outcome"] == "escalate"
    assert given(company(), gave).when(action("10.00", customer_id="C-9")).answer["outcome"] == "taken"


# ---------------------------------------------------------------------- escalations


@rule("an escalation asks for the part that is not owed")
def test_an_approver_needs_authority_for_the_part_that_is_not_owed() -> None:
    request = ask("560.00", basis="correction", order_id="O-1")
    given(company(agent={"per_customer": None}), PAID).when(request).then(
        opened("agent:A-7", "200.00"),
        requested("560.00", reasons=ANY, owed="60.00", payer="approver", to=("M-1",), due="2026-03-12T09:00:00Z"),
    )


def test_an_approval_spends_what_is_not_owed_by_then() -> None:
    asked = requested("100.00", basis="correction", order_id="O-1")
    given(company(agent={"per_customer": None}), asked, PAID).when(approve("esc-1", "M-1")).then(
        approved("100.00", paid_by="agent:M-1"),
        opened("agent:M-1", "2000.00"),
        taken("100.00", owed="60.00", holder="agent:M-1", escalation_id="esc-1", limits=ANY),
    )


def test_a_requesters_own_source_proves_nothing_to_the_approver_either() -> None:
    asked = requested("100.00", basis="correction", order_id="O-1")
    told = paid("O-1", "60.00", source="crm")
    found = given(company(agent={"per_customer": None}), asked, told).when(approve("esc-1", "M-1"), source="tool")
    assert found.events[-1].owed.minor == 0  # type: ignore[union-attr]


# ---------------------------------------------------------------------- the order's own stream


NEAR = company(agent={"per_customer": {"amount": "100.00", "days": 90, "hard_above": "80.00"}})


def test_up_to_hard_above_the_orders_own_stream_is_not_written() -> None:
    given(NEAR, paid("O-1", "200.00")).when(correction("80.00")).then(
        opened("agent:A-7", "200.00"), taken("80.00", owed="80.00", authority="own", limits=ANY)
    )


@rule("near `hard_above` the action is recorded for the order too")
def test_above_hard_above_the_orders_own_stream_is_written() -> None:
    given(NEAR, paid("O-1", "200.00"), returned("O-1", "30.00")).when(correction("50.01")).then(
        opened("agent:A-7", "200.00"),
        taken("50.01", owed="50.01", authority="own", limits=ANY),
        order_charged("O-1", "50.01", paid="200.00", used="30.00"),
    )


def test_near_hard_above_the_decider_reads_what_another_gave_back_first() -> None:
    other = (
        taken("90.00", "D-1", basis="correction", order_id="O-1", owed="90.00", action_id="act-d1"),
        order_charged("O-1", "90.00", paid="200.00", used="0.00", action_id="act-d1"),
    )
    opening = taken("0.00", "D-1", action_id="act-d0")
    scenario = given(NEAR, paid("O-1", "200.00"), opening).not_read_yet(*other)
    scenario.when(correction("110.00")).retries(Retry.AFTER_CATCH_UP)


# ---------------------------------------------------------------------- policies of earlier rules


def test_a_policy_of_earlier_rules_asks_for_no_proof() -> None:
    earlier = published(policy(), rules_version=1), *STAFF
    given(earlier).when(action("900.00", basis="correction")).then(
        opened("agent:A-7", "200.00"), taken("900.00", basis="correction", limits=(), authority="own")
    )
