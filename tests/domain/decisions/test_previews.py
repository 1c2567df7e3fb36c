"""Previews: the answer of an action without taking it."""

import pytest

from domain.decisions.decision import Retry
from domain.serialization import encode
from tests.support.decision_commands import action, preview
from tests.support.decision_company import STAFF, company
from tests.support.decision_events import ANY, fell_short, left, opened, taken, trained, why
from tests.support.decision_scenarios import balance, given, rule

OPENED = opened("agent:A-7", "200.00")
TOO_MUCH = why("per_action", limit="50.00", used="0.00", asked="50.01")


@rule("a preview gives the answer of an action and records nothing")
def test_a_preview_of_an_allowed_action_records_nothing() -> None:
    given(company()).when(preview("50.00", interaction_id="I-1")).then(
        answer={"outcome": "taken", "reasons": [], "policy_version": 1, "budget": balance("agent:A-7", "200.00")}
    )


def test_the_answer_of_a_preview_has_the_documented_form() -> None:
    found = given(company(), taken("5.00")).when(preview(customer_id="C-9"))
    found.then()
    assert encode(found.answer).decode() == (
        '{"outcome":"taken","policy_version":1,"reasons":[],"budget":{"holder":"agent:A-7","period":"2026-03",'
        '"granted":{"amount":"200.00","currency":"GBP"},"spent":{"amount":"5.00","currency":"GBP"},'
        '"reserved":{"amount":"0.00","currency":"GBP"},"remaining":{"amount":"195.00","currency":"GBP"}},'
        '"available":{"amount":"50.00","currency":"GBP"}}'
    )


def test_a_preview_of_a_hold_is_answered_as_a_hold() -> None:
    given(company()).when(preview("5.00", hold=True)).then(answer={"outcome": "held"})


def test_a_preview_that_falls_short_on_an_interaction_is_recorded_as_a_preview() -> None:
    given(company()).when(preview("50.01", interaction_id="I-1")).then(
        OPENED,
        fell_short("50.01", "escalate", TOO_MUCH, preview=True),
        answer={"outcome": "escalate", "reasons": [TOO_MUCH]},
    )


def test_a_preview_that_falls_short_has_no_position_in_its_answer() -> None:
    found = given(company()).when(preview("50.01", interaction_id="I-1"))
    found.then(OPENED, fell_short("50.01", "escalate", TOO_MUCH, preview=True))
    assert "position" not in found.answer


@rule("a preview that falls short is recorded once for an agent, interaction and kind")
def test_a_preview_that_falls_short_again_is_recorded_once() -> None:
    noted = fell_short("50.01", "escalate", preview=True, interaction_id="I-1", agent_id="A-7")
    given(company(), noted).when(preview("90.00", interaction_id="I-1")).then(answer={"outcome": "escalate"})


@pytest.mark.parametrize("other", [{"interaction_id": "I-2"}, {"interaction_id": "I-1", "kind": "credit"}])
def test_a_preview_on_another_interaction_or_of_another_kind_is_recorded(other: dict[str, str]) -> None:
    noted = fell_short("50.01", "escalate", preview=True, interaction_id="I-1", agent_id="A-7")
    given(company(), noted).when(preview("90.00", **other)).then(
        fell_short("90.00", "escalate", reasons=ANY, preview=True)
    )


def test_a_refused_action_does_not_keep_a_preview_from_being_recorded() -> None:
    earlier = fell_short("50.01", "escalate", interaction_id="I-1", agent_id="A-7")
    given(company(), earlier).when(preview("50.01", interaction_id="I-1")).then(
        fell_short("50.01", "escalate", TOO_MUCH, preview=True)
    )


def test_a_preview_without_an_interaction_records_nothing() -> None:
    given(company()).when(preview("50.01")).then(answer={"outcome": "escalate", "reasons": [TOO_MUCH]})


def test_a_preview_of_a_kind_that_no_role_gives_is_refused() -> None:
    given(company()).when(preview("5.00", kind="gift")).then(
        answer={"outcome": "refused", "reasons": [why("kind", asked="5.00")]}
    )


def test_a_preview_for_an_employee_who_has_left_is_refused() -> None:
    given(company(), left("A-7")).when(preview("5.00")).then(answer={"outcome": "refused", "reasons": [why("left")]})


def test_without_a_policy_a_preview_is_refused_and_records_nothing() -> None:
    given(STAFF).when(preview("5.00", interaction_id="I-1")).then(
        answer={"outcome": "refused", "reasons": [why("no_policy")], "policy_version": None, "budget": None}
    )


def test_a_preview_for_an_unknown_agent_is_an_error() -> None:
    given(company()).when(preview("5.00", "A-99")).refused_with("unknown_agent", "agent_id")


def test_before_an_agent_is_unknown_to_a_preview_the_decider_reads_on() -> None:
    given(company()).when(preview("5.00", "A-99"), current=False).retries(Retry.AFTER_CATCH_UP)


def test_a_preview_that_asks_for_an_escalation_foretells_that_no_role_may_approve_it() -> None:
    given(company()).when(preview("2000.01", escalate=True)).then(answer={"outcome": "refused"})


def test_a_preview_that_asks_for_no_escalation_falls_short_whatever_may_be_approved() -> None:
    given(company()).when(preview("2000.01")).then(answer={"outcome": "escalate"})


def test_a_preview_within_authority_asks_nobody() -> None:
    given(company(manager={"approves": None}, director={"approves": None})).when(preview("5.00", escalate=True)).then(
        answer={"outcome": "taken"}
    )


# ---------------------------------------------------------------------- the amount available


def available(amount: str) -> dict[str, object]:
    """Return the part of an answer that names the largest amount."""
    return {"available": {"amount": amount, "currency": "GBP"}}


@rule("a preview without an amount names the largest one that may be given now")
def test_the_amount_available_is_the_tightest_limit() -> None:
    earlier = taken("45.00", interaction_id="I-1")
    given(company(), earlier).when(preview(interaction_id="I-1")).then(answer=available("15.00"))


def test_the_amount_available_is_at_most_the_limit_of_one_action() -> None:
    given(company()).when(preview(interaction_id="I-1", customer_id="C-9")).then(answer=available("50.00"))


def test_the_amount_available_is_at_most_the_rest_of_the_budget() -> None:
    given(company(), taken("199.00", kind="fix")).when(preview()).then(answer=available("1.00"))


def test_the_amount_available_is_at_most_the_rest_of_the_customers_cap() -> None:
    earlier = taken("97.00", "A-8", kind="fix", customer_id="C-9", action_id="act-08")
    given(company(), earlier).when(preview(customer_id="C-9")).then(answer=available("3.00"))


def test_of_an_unlimited_kind_the_rest_of_the_budget_is_available() -> None:
    given(company(), taken("20.00")).when(preview(kind="fix")).then(answer=available("180.00"))


def test_nothing_is_available_of_a_kind_that_the_role_lacks() -> None:
    given(company()).when(preview(kind="credit")).then(answer={"outcome": "escalate"} | available("0.00"))


def test_nothing_is_available_without_the_training() -> None:
    given(company()).when(preview(kind="keep_item")).then(answer={"outcome": "escalate"} | available("0.00"))


def test_with_the_training_the_limit_is_available() -> None:
    given(company(), trained("A-7")).when(preview(kind="keep_item")).then(
        answer={"outcome": "taken"} | available("20.00")
    )


def test_nothing_is_available_from_an_overdrawn_budget() -> None:
    given(company(), taken("250.00", kind="fix")).when(preview()).then(answer=available("0.00"))


@pytest.mark.parametrize("amount", ["0.00", "15.00", "15.01", "50.01", "250.00"])
def test_a_preview_and_the_action_after_it_have_the_same_outcome_and_reasons(amount: str) -> None:
    earlier = taken("45.00", interaction_id="I-1")
    foretold = given(company(), earlier).when(preview(amount, interaction_id="I-1")).answer
    answer = given(company(), earlier).when(action(amount, interaction_id="I-1")).answer
    assert (foretold["outcome"], list(foretold["reasons"])) == (answer["outcome"], list(answer["reasons"]))
