"""A report with the id of a request of the same source is about the same action: its money counts once, in any order."""

from collections import defaultdict

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from domain.commands import action_id_of, escalation_id_of
from domain.decisions.decision import Retry
from domain.events import decisions
from tests.support.decision_commands import action, approve, reverse, settle, void
from tests.support.decision_company import company
from tests.support.decision_events import (
    ANY,
    Described,
    approved,
    charged,
    corrected,
    fell_short,
    held,
    opened,
    paid,
    reported,
    requested,
    reversal,
    settled,
    taken,
    voided,
)
from tests.support.decision_histories import History, Step, amounts, steps
from tests.support.decision_scenarios import Scenario, given, rule
from tests.support.documents import Document

ACTION = action_id_of("crm", "r-1")
OPENED = opened("agent:A-7", "200.00")


def told(amount: str, agent_id: str = "A-7", source: str = "crm") -> Described:
    """Return the report of the action that the source requests as r-1."""
    return reported(amount, agent_id, source=source, event_id="r-1")


def spent(scenario: Scenario, holder: str = "agent:A-7") -> tuple[int, int]:
    """Return what is spent and reserved of a budget."""
    budget = scenario.budget(holder)
    return budget.spent_minor, budget.reserved_minor


def added(amount: str, decided: str, report: str, **fields: str) -> Described:
    return charged(amount, decided=decided, reported=report, **fields)


@rule("a report with the id of a request is about the same action, and charges nothing again")
def test_the_report_of_a_taken_action_charges_nothing() -> None:
    scenario = given(company(), taken("5.00", action_id=ACTION), told("5.00"))
    scenario = scenario.when_posted().then(added("0.00", "5.00", "5.00"))
    assert spent(scenario) == (500, 0)
    scenario.when_posted().then()


@pytest.mark.parametrize("is_read", [True, False])
def test_a_request_that_was_decided_without_knowing_of_the_report_counts_once(is_read: bool) -> None:
    """The decider had not read the report; the posting waits until the state has read the decision."""
    scenario = given(company(), told("5.00"))
    decided = taken("5.00", action_id=ACTION)
    if not is_read:
        scenario.not_read_yet(decided).when_posted().retries(Retry.WHEN_IDLE)
        return
    scenario.add(decided)
    scenario = scenario.when_posted().then(added("0.00", "5.00", "5.00"))
    assert spent(scenario) == (500, 0)


@rule("an action that its source has reported is not taken again")
def test_a_request_with_the_id_of_a_report_is_refused() -> None:
    scenario = given(company(), told("5.00"))
    scenario.when(action("5.00"), request_id="r-1").refused_with("already_reported", "request_id")
    scenario = scenario.when_posted().then(OPENED, charged("5.00"))
    scenario.when(action("5.00", hold=True), request_id="r-1").refused_with("already_reported", "request_id")
    scenario.when(action("5.00"), request_id="r-1").refused_with("already_reported", "request_id")
    assert spent(scenario) == (500, 0)


def test_a_charge_of_another_decider_is_seen_before_the_report_is_read() -> None:
    scenario = given(company(), opened("agent:A-7", "200.00")).not_read_yet(
        told("5.00"), charged("5.00", action_id=ACTION, relates_to=9)
    )
    scenario.when(action("5.00"), request_id="r-1").refused_with("already_reported", "request_id")


def test_a_report_of_more_charges_the_difference() -> None:
    scenario = given(company(), taken("5.00", action_id=ACTION, customer_id="C-9"), told("7.00"))
    scenario = scenario.when_posted().then(added("2.00", "5.00", "7.00"))
    assert spent(scenario) == (700, 0)
    assert [gift.minor for gift in scenario.state.actions.to_group(frozenset({"C-9"}))] == [700]
    undo = reverse(ACTION, recovered=True)
    scenario = scenario.when(undo).then(reversal("7.00", relates_to=ANY))
    assert spent(scenario) == (0, 0)


def test_a_report_of_more_than_the_budget_has_overdraws_it_by_the_difference() -> None:
    scenario = given(company(), taken("50.00", action_id=ACTION), taken("149.00", kind="fix", action_id="act-02"))
    scenario.add(told("53.00"))
    scenario.when_posted().then(charged("3.00", "2.00", decided="50.00", reported="53.00"))


def test_a_report_of_less_gives_nothing_back_and_says_so() -> None:
    scenario = given(company(), taken("5.00", action_id=ACTION), told("3.00"))
    assert spent(scenario.when_posted().then(added("0.00", "5.00", "3.00"))) == (500, 0)


def test_a_report_in_another_currency_is_recorded_beside_the_decision() -> None:
    scenario = given(company(), taken("5.00", action_id=ACTION), told("9.00 EUR"))
    assert spent(scenario.when_posted().then(added("0.00", "5.00", "9.00 EUR"))) == (500, 0)


def test_a_report_that_names_another_employee_adds_to_the_budget_of_the_decision() -> None:
    scenario = given(company(), taken("5.00", action_id=ACTION), told("6.00", "A-8"))
    assert spent(scenario.when_posted().then(added("1.00", "5.00", "6.00", agent_id="A-8"))) == (600, 0)


@pytest.mark.parametrize(("report", "paid_out", "more"), [("15.00", "15.00", "0.00"), ("25.00", "20.00", "5.00")])
def test_the_report_of_a_hold_settles_it(report: str, paid_out: str, more: str) -> None:
    scenario = given(company(), held("20.00", action_id=ACTION), told(report))
    scenario = scenario.when_posted().then(
        settled(paid_out, held="20.00", relates_to=None), added(more, paid_out, report)
    )
    assert spent(scenario) == (int(float(report) * 100), 0)
    scenario.when(void(ACTION)).refused_with("not_held", "action_id")


def test_a_report_in_another_currency_leaves_the_hold_open() -> None:
    scenario = given(company(), held("20.00", action_id=ACTION), told("20.00 EUR"))
    assert spent(scenario.when_posted().then(added("0.00", "20.00", "20.00 EUR"))) == (0, 2000)


@pytest.mark.parametrize("order", ["report, void", "void, report"])
def test_the_report_of_an_action_whose_hold_was_voided_is_charged_whole(order: str) -> None:
    events = {"report": told("15.00"), "void": voided("20.00", "expired", action_id=ACTION)}
    scenario = given(company(), held("20.00", action_id=ACTION), [events[name] for name in order.split(", ")])
    scenario = scenario.when_posted().then(charged("15.00"))
    assert spent(scenario) == (1500, 0)
    scenario.when(reverse(ACTION, recovered=True)).then(reversal("15.00", relates_to=ANY))


@pytest.mark.parametrize("order", ["report, settle", "settle, report"])
def test_the_report_of_a_settled_hold_adds_the_difference(order: str) -> None:
    scenario = given(company(), held("20.00", action_id=ACTION))
    for step in order.split(", "):
        if step == "report":
            scenario.add(told("18.00"))
        else:
            scenario = scenario.when(settle(ACTION, "15.00"), request_id="s-1").then(settled("15.00", held="20.00"))
    assert spent(scenario.when_posted().then(added("3.00", "15.00", "18.00"))) == (1800, 0)


def test_the_report_of_a_reversed_action_charges_nothing() -> None:
    scenario = given(company(), taken("5.00", action_id=ACTION))
    scenario = scenario.when(reverse(ACTION, recovered=True), request_id="u-1").then(reversal("5.00", relates_to=ANY))
    scenario.add(told("5.00"))
    assert spent(scenario.when_posted().then(added("0.00", "5.00", "5.00"))) == (0, 0)


def test_the_report_of_a_refused_action_is_charged() -> None:
    scenario = given(company(), fell_short("90.00", "escalate", request_id="r-1"), told("90.00"))
    assert spent(scenario.when_posted().then(charged("90.00"))) == (9000, 0)


def test_an_escalation_whose_action_was_reported_is_not_approved() -> None:
    esc = escalation_id_of("crm", "r-1")
    asked = requested("90.00", action_id=ACTION, escalation_id=esc, request_id="r-1")
    scenario = given(company(), asked, told("90.00"))
    scenario.when(approve(esc, "M-1")).refused_with("already_reported", "escalation_id")
    scenario = scenario.when_posted().then(charged("90.00"))
    scenario.when(approve(esc, "M-1")).refused_with("already_reported", "escalation_id")


def test_the_report_of_an_approved_action_adds_to_the_budget_that_paid() -> None:
    esc = escalation_id_of("crm", "r-1")
    asked = requested("90.00", action_id=ACTION, escalation_id=esc, request_id="r-1")
    by_manager: Document = {"action_id": ACTION, "escalation_id": esc, "decided_by": "M-1"}
    step = approved("90.00", asked="90.00", paid_by="agent:M-1", **by_manager)
    action_paid = taken("90.00", holder="agent:M-1", authority="approved", **by_manager)
    scenario = given(company(), asked, step, action_paid, told("95.00"))
    scenario = scenario.when_posted().then(added("5.00", "90.00", "95.00"))
    assert spent(scenario, "agent:M-1") == (9500, 0)


def test_the_report_of_another_source_is_another_action() -> None:
    scenario = given(company(), taken("5.00", action_id=ACTION), told("5.00", source="till"))
    assert spent(scenario.when_posted().then(charged("5.00"))) == (1000, 0)
    assert scenario.when(action("5.00"), request_id="r-1", source="shop").answer["outcome"] == "taken"


def test_an_action_that_was_reported_by_mistake_stays_charged_and_its_id_used() -> None:
    """A correction changes no charge: the money is put right by a reversal, and a new request has a new id."""
    scenario = given(company(), told("5.00"))
    scenario = scenario.when_posted().then(OPENED, charged("5.00"))
    scenario.add(corrected(9, None))
    scenario.when(action("5.00"), request_id="r-1").refused_with("already_reported", "request_id")
    scenario.when(reverse(ACTION, recovered=True)).then(reversal("5.00", relates_to=9))


def test_a_report_of_what_was_owed_adds_only_what_is_not() -> None:
    asked = taken("10.00", basis="correction", owed="10.00", order_id="O-1", action_id=ACTION)
    fact = reported("15.00", basis="correction", order_id="O-1", event_id="r-1")
    scenario = given(company(), paid("O-1", "12.00"), asked, fact)
    assert spent(scenario.when_posted().then(added("5.00", "10.00", "15.00", owed="2.00"))) == (300, 0)


def test_rules_of_earlier_versions_keep_their_decisions() -> None:
    scenario = given(company(), taken("5.00", action_id=ACTION), told("5.00"))
    scenario.when_posted(rules_version=2).then(charged("5.00"))
    assert (
        given(company(), told("5.00")).when(action("5.00"), request_id="r-1", rules_version=2).answer["outcome"]
        == "taken"
    )


@settings(max_examples=25)
@for_all(steps, st.lists(st.tuples(st.integers(0, 30), amounts), min_size=8, max_size=8))
def test_each_action_counts_once_in_any_history(told: list[Step], reports: list[tuple[int, str]]) -> None:
    """By the events alone: what was decided and what its report added are together the larger of the two."""
    past = History(soon_empty=False)
    for number, step in enumerate(told):
        past.take(step)
        if number % 3 == 0 and number // 3 < len(reports):
            past.report_again(*reports[number // 3])
    decided, more = dict[str, int](), defaultdict[str, int](int)
    names = {action_id_of("crm", name): name for name in past.reported}
    for one in past.scenario.bodies:
        match one:
            case decisions.ActionTaken() | decisions.ActionSettled():
                decided[one.action_id] = one.amount.minor
            case decisions.ActionCharged():
                more[one.action_id] += one.amount.minor
    for action_id, name in names.items():
        assert decided.get(action_id, 0) + more[action_id] == max(decided.get(action_id, 0), past.reported[name]), name
