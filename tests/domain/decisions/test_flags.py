"""Flags: reviewed by a person, answered by the employee concerned, and the look at the names behind one."""

import pytest

from domain.serialization import encode
from tests.support.decision_commands import review
from tests.support.decision_company import company
from tests.support.decision_events import flag_answered, flag_raised, flag_reviewed, flag_unmasked
from tests.support.decision_scenarios import given, rule

RAISED = flag_raised("flag-1")


@rule("a person reviews a flag of the guard")
def test_the_review_of_a_flag_is_recorded() -> None:
    given(company(), RAISED).when(review(verdict="coached", reviewed_by="M-1", note="we talked")).then(
        flag_reviewed("coached", reviewed_by="M-1", note="we talked"),
        answer={"outcome": "done", "flag_id": "flag-1", "verdict": "coached"},
    )


@pytest.mark.parametrize("verdict", ["confirmed", "coached", "dismissed"])
def test_a_flag_is_confirmed_coached_or_dismissed(verdict: str) -> None:
    found = given(company(), RAISED).when(review(verdict=verdict, reviewed_by="M-1"))
    found.then(flag_reviewed(verdict, reviewed_by="M-1"))
    assert encode(found.answer).decode() == (
        f'{{"outcome":"done","position":10,"flag_id":"flag-1","verdict":"{verdict}"}}'
    )


@rule("the employee whom a flag concerns may answer it")
def test_the_answer_of_the_employee_concerned_is_recorded() -> None:
    given(company(), RAISED).when(review(employee_id="A-7", text="the day of the storm")).then(
        flag_answered("the day of the storm", employee_id="A-7"), answer={"outcome": "done", "flag_id": "flag-1"}
    )


def test_the_look_at_the_names_behind_a_flag_is_recorded() -> None:
    given(company(), RAISED).when(review(unmasked_by="M-1")).then(
        flag_unmasked(unmasked_by="M-1"), answer={"outcome": "done", "flag_id": "flag-1"}
    )


def test_a_reviewed_flag_may_be_reviewed_again() -> None:
    earlier = flag_reviewed("dismissed", reviewed_by="M-1")
    given(company(), RAISED, earlier).when(review(verdict="confirmed", reviewed_by="M-2")).then(
        flag_reviewed("confirmed", reviewed_by="M-2")
    )


def test_a_flag_is_reviewed_without_a_policy_in_force() -> None:
    given(RAISED).when(review(verdict="dismissed", reviewed_by="M-1")).then(
        flag_reviewed("dismissed", reviewed_by="M-1")
    )


@pytest.mark.parametrize(
    "fields",
    [{"verdict": "coached", "reviewed_by": "M-1"}, {"employee_id": "A-7", "text": "no"}, {"unmasked_by": "M-1"}],
)
def test_a_flag_that_was_not_raised_is_an_error(fields: dict[str, str]) -> None:
    given(company(), RAISED).when(review("flag-2", **fields)).refused_with("unknown_flag", "flag_id")


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"verdict": "coached"}, "reviewed_by"),
        ({"reviewed_by": "M-1"}, "verdict"),
        ({"employee_id": "A-7"}, "verdict"),
        ({}, "verdict"),
    ],
)
def test_a_review_or_an_answer_needs_both_of_its_fields(fields: dict[str, str], missing: str) -> None:
    given(company(), RAISED).when(review(**fields)).refused_with("invalid", missing)
