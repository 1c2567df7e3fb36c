"""Facts: actions that were taken offline are charged to their budget; corrected facts change later decisions."""

import hashlib

import pytest

from domain.decisions.decision import Retry
from tests.support.decision_commands import action
from tests.support.decision_company import STAFF, company, policy
from tests.support.decision_events import (
    ANY,
    charged,
    closed,
    corrected,
    held,
    joined,
    left,
    linked,
    opened,
    paid,
    published,
    related,
    reported,
    taken,
    trained,
)
from tests.support.decision_scenarios import given, rule

OPENED = opened("agent:A-7", "200.00")


@rule("an action that was taken offline is charged to its agent's budget")
def test_a_reported_action_is_charged_to_its_agents_budget() -> None:
    fact = reported("20.00", event_id="till-1", customer_id="C-9", interaction_id="I-1")
    action_id = "act-" + hashlib.sha256(b"crm\ntill-1").hexdigest()[:32]
    scenario = (
        given(company(), fact)
        .when_posted()
        .then(OPENED, charged("20.00", action_id=action_id, request_id="till-1", relates_to=9))
    )
    assert scenario.budget("agent:A-7").remaining_minor == 18_000


@rule("a reported action is charged even beyond the budget")
def test_a_reported_action_is_charged_beyond_the_budget() -> None:
    scenario = (
        given(company(), taken("190.00", kind="fix"), reported("30.00")).when_posted().then(charged("30.00", "20.00"))
    )
    assert scenario.budget("agent:A-7").remaining_minor == -2_000


def test_a_reported_action_on_an_overdrawn_budget_is_overdrawn_whole() -> None:
    given(company(), taken("210.00", kind="fix"), reported("30.00")).when_posted().then(charged("30.00", "30.00"))


def test_a_reported_action_meets_no_limit() -> None:
    given(company(), reported("150.00", kind="gift")).when_posted().then(OPENED, charged("150.00"))


def test_a_reported_action_is_charged_once() -> None:
    scenario = given(company(), reported("20.00")).when_posted().then(OPENED, charged("20.00"))
    scenario.when_posted().then()


def test_each_reported_action_is_charged() -> None:
    scenario = given(company(), reported("20.00", event_id="till-1"), reported("20.00", event_id="till-2"))
    scenario = scenario.when_posted().then(OPENED, charged("20.00")).when_posted().then(charged("20.00"))
    assert scenario.budget("agent:A-7").spent_minor == 4_000


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
def test_a_reported_action_is_charged_as_far_as_it_is_not_owed(basis: str) -> None:
    offline = reported("20.00", basis=basis, order_id="O-1")
    found = given(company(), paid("O-1", "12.00"), offline).when_posted()
    scenario = found.then(OPENED, charged("20.00", basis=basis, owed="12.00"))
    assert scenario.budget("agent:A-7").spent_minor == 800


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
def test_under_a_policy_of_earlier_rules_only_reported_goodwill_is_charged(basis: str) -> None:
    earlier = published(policy(), rules_version=1), *STAFF
    given(earlier, reported("20.00", basis=basis)).when_posted().then()


def test_an_action_of_an_employee_who_has_left_is_charged_too() -> None:
    given(company(), left("A-7"), reported("20.00")).when_posted().then(OPENED, charged("20.00"))


def test_an_action_of_an_unknown_employee_is_charged_to_a_budget_without_a_grant() -> None:
    given(company(), reported("20.00", "A-99")).when_posted().then(
        opened("agent:A-99", "0.00"), charged("20.00", "20.00")
    )


def test_an_action_in_another_currency_is_charged_in_that_currency() -> None:
    given(company(), reported("20.00 EUR")).when_posted().then(
        opened("agent:A-7", "0.00 EUR", carried_over="0.00 EUR", currency="EUR"), charged("20.00 EUR", "20.00 EUR")
    )


def test_without_a_policy_a_reported_action_waits() -> None:
    given(joined("A-7"), reported("20.00")).when_posted().refused_with("no_policy")


def test_an_action_of_a_past_period_is_charged_to_the_open_one() -> None:
    late = reported("20.00", at="2026-02-10T09:00:00Z")
    given(company(), opened("agent:A-7", "200.00"), late).when_posted(at="2026-02-10T09:00:00Z").then(
        charged("20.00", period="2026-03")
    )


def test_an_action_of_the_present_period_closes_the_one_before() -> None:
    given(company(), taken("150.00", kind="fix", at="2026-02-10T09:00:00Z"), reported("20.00")).when_posted().then(
        closed("agent:A-7", "2026-02", spent="150.00", carried_over="50.00"),
        opened("agent:A-7", "200.00", carried_over="50.00"),
        charged("20.00"),
    )


def test_an_action_leaves_what_it_charged_to_the_next_one() -> None:
    scenario = given(company(), reported("180.00")).when_posted().then(OPENED, charged("180.00"))
    found = scenario.when(action("20.01"))
    assert [(one.rule, one.used.text) for one in found.answer["reasons"]] == [("budget", "180.00")]


def test_a_posting_waits_until_the_budget_was_read() -> None:
    scenario = given(company(), reported("20.00")).not_read_yet(held("5.00", action_id="act-02"))
    scenario.when_posted().retries(Retry.WHEN_IDLE)


# ---------------------------------------------------------------------- corrections


@rule("a corrected fact counts as it was corrected")
def test_a_relation_that_was_never_there_does_not_bind() -> None:
    scenario = given(company(), related("A-7", "C-9"), corrected(9, None))
    scenario.when(action("5.00", customer_id="C-9")).then(OPENED, taken("5.00", limits=ANY, authority="own"))


def test_a_relation_that_was_corrected_binds_as_corrected() -> None:
    right = {"employee_id": "A-7", "customer_id": "C-8", "nature": "sibling"}
    scenario = given(company(), related("A-7", "C-9"), corrected(9, right))
    assert scenario.when(action("5.00", customer_id="C-8")).answer["outcome"] == "refused"
    assert scenario.when(action("5.00", customer_id="C-9")).answer["outcome"] == "taken"


def test_a_course_that_was_never_completed_gives_no_authority() -> None:
    scenario = given(company(), trained("A-7"), corrected(9, None))
    assert scenario.when(action("5.00", kind="keep_item")).answer["outcome"] == "escalate"


def test_an_employee_who_never_left_may_act() -> None:
    scenario = given(company(), left("A-7"), corrected(9, None))
    assert scenario.when(action("5.00")).answer["outcome"] == "taken"


def test_a_link_that_was_never_there_joins_no_household() -> None:
    scenario = given(company(), linked("A-7", "C-9"), corrected(9, None))
    assert scenario.when(action("5.00", customer_id="C-9")).answer["outcome"] == "taken"


def test_a_role_that_was_corrected_gives_the_limits_of_the_right_one() -> None:
    right = {"employee_id": "A-9", "role": "manager", "team_ids": []}
    scenario = given(company(), joined("A-9", "agent"), corrected(9, right))
    assert scenario.when(action("400.00", "A-9")).answer["outcome"] == "taken"


def test_an_employee_who_never_joined_is_unknown() -> None:
    scenario = given(company(), joined("A-9", "agent"), corrected(9, None))
    scenario.when(action("5.00", "A-9")).refused_with("unknown_agent", "agent_id")
