"""Rules that count in the order of event times: each fires on its pattern, and leaves honest neighbours alone."""

import random
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from domain.abuse.guard import Guard
from domain.abuse.history import HOUR, GuardEvent
from domain.events import decisions, facts
from domain.events.administration import AccessRecorded
from domain.money import Money
from tests.support.documents import Document
from tests.support.guard_story import BEGIN, Story

CAUSE: Document = {"source": "crm", "request_id": "r", "seen_position": 0}


def linked(a: str, b: str) -> facts.CustomerLinked:
    return facts.CustomerLinked(a=a, b=b, relation="household")


def unlinked(a: str, b: str) -> facts.CustomerUnlinked:
    return facts.CustomerUnlinked(a=a, b=b, relation="household")


def retracted(story: Story, position: int) -> None:
    correction = facts.FactCorrected(source_of="crm", id_of="f", data=None, reason="wrong")
    story.tell(correction, story.hour + 1, corrects=position)


def approves(story: Story, asker: str, decider: str) -> None:
    story.tell(
        decisions.EscalationApproved(
            **CAUSE,
            escalation_id=f"esc-{len(story.seen)}",
            agent_id=asker,
            budget=f"agent:{asker}",
            period="2026-01",
            amount=Money(5000, "GBP"),
            waited_seconds=60.0,
            decided_by=decider,
            asked=Money(5000, "GBP"),
            action_id="act-x",
            paid_by="team:x",
        ),
        story.hour + 1,
    )


def grants(story: Story, giver: str, taker: str, hour: float | None = None) -> None:
    common: Document = {**CAUSE, "period": "2026-01", "amount": Money(5000, "GBP"), "reason": "x"}
    story.tell(decisions.BudgetGranted(**common, holder=f"agent:{taker}", granted_by=giver), hour)


def delegates(story: Story, giver: str, taker: str) -> None:
    begin = datetime(2026, 1, 6, tzinfo=UTC)
    story.tell(
        facts.DelegationDeclared(
            from_employee_id=giver, to_employee_id=taker, from_time=begin, until_time=begin + timedelta(days=7)
        )
    )


def changes(story: Story, agent: str, *teams: str) -> None:
    story.tell(facts.EmployeeChanged(employee_id=agent, role="agent", team_ids=teams), story.hour + 1)


def draws(story: Story, agent: str, team: str) -> None:
    action_id = story.gives(agent, 10, story.hour + 1)
    story.tell(
        decisions.BudgetDrawn(
            **CAUSE,
            holder=f"agent:{agent}",
            period="2026-01",
            direction="in",
            other_holder=f"team:{team}",
            amount=Money(1000, "GBP"),
            action_id=action_id,
        )
    )


def reverses(story: Story, agent: str, action_id: str, by: str) -> None:
    story.tell(
        decisions.ActionReversed(
            **CAUSE,
            action_id=action_id,
            holder=f"agent:{agent}",
            period="2026-01",
            amount=Money(1000, "GBP"),
            agent_id=agent,
            recovered=True,
            reversed_by=by,
            reason="x",
            relates_to=1,
        )
    )


def ends_hold(story: Story, agent: str, number: int, how: Literal["voided", "settled"]) -> None:
    """Hold 10.00 on one day, and end the hold on the next."""
    common: Document = {
        **CAUSE,
        "action_id": f"hold-{number}",
        "agent_id": agent,
        "holder": f"agent:{agent}",
        "period": "2026-01",
        "amount": Money(1000, "GBP"),
        "basis": "goodwill",
        "customer_id": f"C-hold{number}",
    }
    held = decisions.ActionHeld(
        **common, role="agent", kind="refund", reason="late", policy_version=1, training=(), limits=()
    )
    story.tell(held, number * 24.0)
    if how == "settled":
        story.tell(decisions.ActionSettled(**common, held=Money(1000, "GBP")), number * 24.0 + 20)
    else:
        story.tell(decisions.ActionVoided(**common, reason="expired"), number * 24.0 + 20)


def purchase(story: Story, order: str, amount: int, customer: str | None = None) -> None:
    """Record a purchase of six minutes ago."""
    fact = facts.PurchaseCompleted(order_id=order, customer_id=customer, total=Money(amount * 100, "GBP"))
    story.tell(fact, story.hour - 0.1)


# ---------------------------------------------------------------- R2


def test_r2_parts_of_two_kinds_after_the_answer_was_to_ask() -> None:
    story = Story()
    story.falls_short(35, order_id="O-1")
    story.gives("A-1", 18, order="O-1")
    story.gives("A-1", 17, 2, kind="credit", order="O-1")
    assert story.waits() == ["R2"]


def test_r2_parts_that_are_25_hours_apart_after_the_answer_was_to_ask() -> None:
    story = Story()
    story.falls_short(35, customer_id="C-1")
    story.gives("A-1", 18, 1, customer="C-1")
    story.gives("A-1", 17, 26, customer="C-1")
    assert story.waits() == ["R2"]


def test_r2_a_smaller_gift_of_another_kind_after_the_answer_was_to_ask_is_no_split() -> None:
    story = Story()
    story.falls_short(60, order_id="O-1")
    story.gives("A-1", 18, order="O-1")
    story.gives("A-1", 5, 2, kind="credit", order="O-1")
    assert story.waits() == []


@pytest.mark.parametrize(("matters", "flagged"), [(3, False), (4, True)])
def test_r2_parts_of_two_kinds_in_four_matters_unlike_all_others(matters: int, flagged: bool) -> None:
    story = Story()
    story.ordinary(days=5)
    for number in range(matters):
        story.gives("A-1", 18, story.hour + 30, order=f"O-{number}", customer=f"C-w{number}")
        story.gives("A-1", 17, story.hour + 30, order=f"O-{number}", customer=f"C-w{number}", kind="credit")
    assert ("R2" in story.waits()) == flagged


def test_r2_a_refund_with_a_credit_is_no_split_where_all_give_both() -> None:
    story = Story()
    for number in range(40):
        for kind in ("refund", "credit"):
            story.gives(f"A-{number % 8}", 15, number * 2.0, order=f"O-{number}", customer=f"C-w{number}", kind=kind)
    assert story.waits() == []


# ---------------------------------------------------------------- R4


def test_r4_linked_as_the_agents_own_after_the_gift() -> None:
    story = Story()
    story.gives("A-1", 10, 1, customer="C-friend")
    story.tell(linked("C-friend", "A-1"), 20)
    assert story.waits() == ["R4"]


def test_r4_declared_as_a_relation_after_the_gift() -> None:
    story = Story()
    story.gives("A-1", 10, 1, customer="C-friend")
    story.tell(facts.RelationshipDeclared(employee_id="A-1", customer_id="C-friend", nature="family"), 20)
    assert story.waits() == ["R4"]


def test_r4_unlinked_from_the_agents_own_before_the_gift() -> None:
    story = Story()
    story.tell(linked("C-friend", "A-1"), 1)
    story.tell(unlinked("C-friend", "A-1"), 2)
    story.gives("A-1", 10, 3, customer="C-friend")
    assert story.waits() == ["R4"]


def test_r4_a_customer_who_is_linked_to_another_customer_after_a_gift_is_no_self_dealing() -> None:
    story = Story()
    story.tell(linked("C-sister", "A-1"), 1)
    story.gives("A-1", 10, 2, customer="C-1")
    story.gives("A-2", 10, 2, customer="C-sister")
    story.tell(linked("C-1", "C-2"), 20)
    story.tell(unlinked("C-sister", "A-1"), 21)
    story.gives("A-1", 10, 21 + 31 * 24, customer="C-sister")
    assert story.waits() == []


# ---------------------------------------------------------------- R5


@pytest.mark.parametrize("link_first", [True, False])
def test_r5_an_approval_under_a_second_account_of_one_household(*, link_first: bool) -> None:
    story = Story()
    if link_first:
        story.tell(linked("A-1", "M-1"), 1)
    approves(story, "A-1", "M-1")
    if not link_first:
        story.tell(facts.RelationshipDeclared(employee_id="M-1", customer_id="C-home", nature="own account"), 5)
        story.tell(facts.RelationshipDeclared(employee_id="A-1", customer_id="C-home", nature="own account"), 6)
    assert story.waits() == ["R5"]


def test_r5_an_approval_for_a_person_with_another_household_is_in_order() -> None:
    story = Story()
    story.tell(linked("A-1", "C-1"), 1)
    story.tell(linked("M-1", "C-2"), 1)
    approves(story, "A-1", "M-1")
    assert story.waits() == []


# ---------------------------------------------------------------- R12


def test_r12_policies_and_operations_past_governance() -> None:
    story = Story()
    story.tell(AccessRecorded(who="operator", what="break-glass policy", via="cli"))
    assert story.rules() == ["R12"]


def test_r12_a_sign_in_and_an_export_are_no_break_glass() -> None:
    story = Story()
    story.tell(AccessRecorded(who="kim", what="sign-in", via="http"))
    story.tell(AccessRecorded(who="operator", what="export", via="cli"))
    assert story.rules() == []


def test_r12_a_team_that_is_joined_for_its_pool() -> None:
    story = Story()
    story.tell(facts.EmployeeJoined(employee_id="A-1", role="agent", team_ids=("desk",)))
    changes(story, "A-1", "desk", "doorstep")
    draws(story, "A-1", "doorstep")
    changes(story, "A-1", "desk")
    assert story.waits() == ["R12"]


def test_r12_help_in_another_team_for_some_days_borrows_no_pool() -> None:
    story = Story()
    story.tell(facts.EmployeeJoined(employee_id="A-1", role="agent", team_ids=("desk",)))
    changes(story, "A-1", "doorstep")
    story.gives("A-1", 10, story.hour + 1)
    draws(story, "A-1", "doorstep")
    changes(story, "A-1", "desk")
    assert story.waits() == []


# ---------------------------------------------------------------- R14


@pytest.mark.parametrize("basis", ["goodwill", "entitlement", "correction"])
def test_r14_reported_90000_of_each_basis(basis: Literal["goodwill", "entitlement", "correction"]) -> None:
    story = Story()
    story.gives("A-1", 90_000, reported=True, basis=basis)
    assert "R14" in story.waits()


def test_r14_a_reported_entitlement_that_was_paid_is_in_order() -> None:
    story = Story()
    story.gives("A-1", 500, 1, reported=True, basis="entitlement", order="O-1")
    purchase(story, "O-1", 500)
    assert story.waits() == []


# ---------------------------------------------------------------- R15


def test_r15_reversals_by_a_robot() -> None:
    story = Story()
    story.tell(facts.EmployeeJoined(employee_id="M-1", role="manager", team_ids=()))
    for number in range(3):
        reverses(story, "A-1", story.gives("A-1", 10, number * 5.0), "undo-bot")
    assert story.rules() == ["R15"]


def test_r15_a_payment_system_and_a_manager_who_reverse_all_agents_mistakes_are_no_churn() -> None:
    story = Story()
    story.tell(facts.EmployeeJoined(employee_id="M-1", role="manager", team_ids=()))
    for number in range(60):
        action_id = story.gives(f"A-{number % 4}", 10, number * 1.0)
        if number % 5 == 0:
            reverses(story, f"A-{number % 4}", action_id, "psp")
        elif number % 4 == 0 and number % 3 == 0:
            reverses(story, "A-0", action_id, "M-1")
    assert story.rules() == []


def test_r15_holds_that_are_never_settled() -> None:
    story = Story()
    for number in range(6):
        ends_hold(story, "A-1", number, "voided")
    assert story.rules() == ["R15"]


def test_r15_holds_of_which_some_expire_are_no_churn() -> None:
    story = Story()
    for number in range(12):
        ends_hold(story, "A-1", number, "voided" if number % 2 else "settled")
    assert story.rules() == []


# ---------------------------------------------------------------- R16


def test_r16_entitlement_far_beyond_any_payment() -> None:
    story = Story()
    story.gives("A-1", 9_999_999, limit=20.0, basis="entitlement")
    assert story.waits() == ["R16"]


def test_r16_corrections_that_no_payment_shows_as_owed() -> None:
    story = Story()
    story.ordinary(days=3)
    purchase(story, "O-0", 100)
    for _ in range(4):
        story.gives("A-1", 10, story.hour + 1, basis="correction")
    assert "R16" in story.waits()


def test_r16_corrections_of_unknown_orders_are_judged_once_late_payments_are_there() -> None:
    for paid in (False, True):
        story = Story()
        purchase(story, "O-0", 100)
        story.ordinary(days=23)
        orders = [f"O-late{number}" for number in range(4)]
        for order in orders:
            story.gives("A-1", 10, story.hour + 1, basis="correction", order=order)
        assert "R16" not in story.waits()
        for order in orders if paid else ():
            purchase(story, order, 10)
        story.later(story.hour + 3 * 24)
        story.gives("A-2", 1)
        assert ("R16" in story.waits()) is not paid


def test_r16_a_correction_with_a_payment_that_arrives_a_moment_later_is_owed() -> None:
    story = Story()
    story.ordinary(days=3)
    purchase(story, "O-0", 100)
    for number in range(6):
        story.gives("A-1", 10, story.hour + 1, basis="correction", order=f"O-{number}")
        purchase(story, f"O-{number}", 30)
    assert story.waits() == []


def test_r16_a_recall_in_which_all_correct_without_an_order_is_no_sign() -> None:
    story = Story()
    story.ordinary(days=2)
    purchase(story, "O-0", 100)
    for number in range(60):
        story.gives(f"A-{number % 12}", 10, story.hour + 0.2, basis="correction")
    assert story.waits() == []


def test_r16_entitlements_for_one_friend() -> None:
    story = Story()
    for number in range(5):
        purchase(story, f"O-{number}", 30, "C-friend")
        story.gives("A-1", 10, number * 200.0, basis="entitlement", order=f"O-{number}", customer="C-friend")
    assert story.waits() == ["R16"]


def test_r16_a_customer_of_a_desk_whose_contacts_often_bring_entitlements_is_no_friend() -> None:
    """The friend's five entitlements raise a flag at a desk that gives none to others (the test before)."""
    story = Story()
    for number in range(60):
        interaction = story.contact("A-1", number * 3.0, customer=f"C-{number}")
        if number % 2:
            purchase(story, f"P-{number}", 30, f"C-{number}")
            order = f"P-{number}"
            customer = f"C-{number}"
            story.gives("A-1", 10, basis="entitlement", order=order, customer=customer, interaction=interaction)
    story.night()
    for number in range(5):
        interaction = story.contact("A-1", story.hour + 20, customer="C-regular")
        purchase(story, f"O-{number}", 30, "C-regular")
        order = f"O-{number}"
        story.gives("A-1", 10, basis="entitlement", order=order, customer="C-regular", interaction=interaction)
    assert story.waits() == []


def test_r16_a_regular_customer_of_one_desk_with_few_entitlements_a_contact_is_no_friend() -> None:
    story = Story()
    for number in range(20):
        interaction = story.contact("A-1", number * 24.0, customer="C-regular")
        if number % 4 == 0:
            purchase(story, f"O-{number}", 30, "C-regular")
            story.gives(
                "A-1",
                10,
                basis="entitlement",
                order=f"O-{number}",
                customer="C-regular",
                interaction=interaction,
            )
    assert story.waits() == []


# ---------------------------------------------------------------- R17


def test_r17_a_relation_that_is_retracted_before_the_gift() -> None:
    story = Story()
    position = story.tell(facts.RelationshipDeclared(employee_id="A-1", customer_id="C-sister", nature="family"), 1)
    retracted(story, position)
    story.gives("A-1", 10, 3, customer="C-sister")
    assert "R17" in story.waits()


def test_r17_a_retracted_relation_without_a_gift_is_no_sign() -> None:
    story = Story()
    position = story.tell(facts.RelationshipDeclared(employee_id="A-1", customer_id="C-sister", nature="family"), 1)
    retracted(story, position)
    story.gives("A-2", 10, 3, customer="C-sister")
    story.gives("A-1", 10, 3, customer="C-other")
    assert story.waits() == []


def test_r17_gifts_to_both_sides_of_a_link_that_was_cut_between_them() -> None:
    story = Story()
    story.tell(linked("C-1", "C-2"), 1)
    story.gives("A-1", 10, 2, customer="C-1")
    story.tell(unlinked("C-1", "C-2"), 3)
    story.gives("A-1", 10, 4, customer="C-2")
    assert story.waits() == ["R17"]
    assert story.raised[0].finding.p is not None  # one gift to each side may be chance
    story.gives("A-1", 10, story.hour, customer="C-2")
    story.gives("A-1", 10, story.hour, customer="C-2")
    story.waits()
    assert story.raised[-1].finding.p is None


def test_r17_a_link_that_is_cut_for_a_gift_and_made_again() -> None:
    story = Story()
    story.tell(linked("C-1", "C-2"), 1)
    story.tell(unlinked("C-1", "C-2"), 3)
    story.gives("A-1", 10, 4, customer="C-2")
    story.tell(linked("C-1", "C-2"), 5)
    assert story.waits() == ["R17"]


def test_r17_gifts_by_two_agents_around_a_wrong_link_are_no_sign() -> None:
    story = Story()
    story.tell(linked("C-1", "C-2"), 1)
    story.gives("A-1", 10, 2, customer="C-1")
    story.tell(unlinked("C-1", "C-2"), 3)
    story.gives("A-2", 10, 4, customer="C-2")
    assert story.waits() == []


def test_r17_customers_that_only_one_agents_requests_name() -> None:
    story = Story()
    for number in range(40):
        interaction = story.contact(f"A-{number % 8}", number * 1.0, customer=f"C-{number}")
        story.gives(f"A-{number % 8}", 10, customer=f"C-{number}", interaction=interaction)
    for number in range(6):
        story.gives("A-9", 10, story.hour + 1, customer=f"C-ghost{number}")
    assert story.waits() == ["R17"]


def test_r17_customers_named_by_requests_alone_are_ordinary_where_nothing_else_is_recorded() -> None:
    story = Story()
    for number in range(80):
        story.gives(f"A-{number % 8}", 10, number * 1.0)
    assert story.waits() == []


@pytest.mark.parametrize(("one", "other"), [("C-10", "C-IO"), ("C-ab", "c-AB"), ("C-a b", "C-ab"), ("Ann", "Аnn")])
def test_r17_customers_of_one_agent_whose_ids_look_alike(one: str, other: str) -> None:
    story = Story()
    story.gives("A-1", 10, 1, customer=one)
    story.gives("A-1", 10, 50, customer=other)
    assert story.waits() == ["R17"]


def test_r17_an_employee_whose_id_looks_like_anothers() -> None:
    story = Story()
    story.tell(facts.EmployeeJoined(employee_id="kim.lee", role="agent", team_ids=()))
    story.gives("Kim.Iee", 10)
    story.gives("kim.Lee", 10)
    assert story.waits() == ["R17"]


def test_r17_ids_in_a_row_and_alike_customers_of_two_agents_are_no_sign() -> None:
    story = Story()
    for number in range(30):
        story.gives("A-1", 10, number * 1.0, customer=f"C-{number:04}", interaction=story.contact("A-1"))
    story.gives("A-2", 10, 40, customer="C-IO")
    story.gives("A-3", 10, 41, customer="C-10")
    assert story.waits() == []


# ---------------------------------------------------------------- R18


def test_r18_grants_in_turn() -> None:
    story = Story()
    grants(story, "M-1", "M-2", 1)
    grants(story, "M-2", "M-1", 200)
    assert story.waits() == ["R18"]


def test_r18_a_circle_of_three() -> None:
    story = Story()
    grants(story, "M-1", "M-2", 1)
    delegates(story, "M-2", "M-3")
    for _ in range(3):
        approves(story, "M-1", "M-3")
    assert story.waits() == ["R18"]


def test_r18_grants_down_a_tree_and_delegations_in_turn_are_no_circle() -> None:
    story = Story()
    grants(story, "H-1", "M-1", 1)
    grants(story, "M-1", "A-1", 2)
    grants(story, "H-1", "M-2", 3)
    delegates(story, "M-1", "M-2")
    delegates(story, "M-2", "M-1")
    approves(story, "M-1", "M-2")
    approves(story, "M-2", "M-1")
    grants(story, "M-1", "H-1", 31 * 24 + 2)
    assert story.waits() == []


# ---------------------------------------------------------------- order of arrival


def test_the_order_of_arrival_within_the_waiting_time_changes_no_flag() -> None:
    story = Story()
    position = story.tell(facts.RelationshipDeclared(employee_id="A-1", customer_id="C-sister", nature="family"), 1.0)
    story.tell(linked("C-1", "C-2"), 1.01)
    story.gives("A-1", 10, 1.02, customer="C-1", reported=True)
    story.tell(unlinked("C-1", "C-2"), 1.03)
    story.gives("A-1", 10, 1.04, customer="C-2", reported=True)
    story.gives("A-2", 12, 1.05, customer="C-own", reported=True, basis="correction", order="O-1")
    story.tell(linked("C-own", "A-2"), 1.06)
    purchase(story, "O-1", 30)
    delegates(story, "M-1", "M-2")
    story.gives("A-1", 10, 1.2, customer="C-sister", reported=True)
    told = [*story.seen[1:]]
    assert story.waits()
    expected = {(one.finding.rule, one.finding.about, one.finding.key) for one in story.raised}
    for seed in range(20):
        random.Random(seed).shuffle(told)
        guard = Guard()
        found = guard.take(story.seen[0])
        for place, seen in enumerate(told):
            recorded = BEGIN + 1.2 * HOUR + place
            found += guard.take(seen._replace(position=place + 2, recorded=recorded))
        found += guard.take(GuardEvent(99, BEGIN + 2 * HOUR, BEGIN + 2 * HOUR, facts.ShiftStarted(employee_id="x")))
        waiting = {(one.finding.rule, one.finding.about, one.finding.key) for one in found}
        live = {one for one in expected | waiting if one[0] == "R4" and one[2].startswith("act-")}
        assert waiting - live == expected - live, seed
    assert position == 2
