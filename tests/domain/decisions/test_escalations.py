"""Escalations: when one is filed, whom it asks, and the pool that reserves its amount."""

import hashlib

import pytest

from domain.decisions.decision import Retry
from domain.serialization import encode
from tests.support.decision_commands import action, ask
from tests.support.decision_company import STAFF, company
from tests.support.decision_events import (
    ANY,
    drawn,
    fell_short,
    held,
    joined,
    left,
    linked,
    met,
    moved,
    opened,
    paid,
    requested,
    taken,
    trained,
    why,
)
from tests.support.decision_scenarios import given, rule

OPENED = opened("agent:A-7", "200.00")
DIGITS = hashlib.sha256(b"crm\ne-1").hexdigest()[:32]
TOO_MUCH = why("per_action", limit="50.00", used="0.00", asked="90.00")
DUE = "2026-03-12T09:00:00Z"
TEAM_PAYS = {"payer": "team", "after_hours": 48, "then": "next_level"}


@rule("an escalation goes to the nearest manager with the right to approve it")
def test_an_escalation_goes_to_the_nearest_manager_with_the_right() -> None:
    given(company()).when(ask("90.00")).then(
        OPENED,
        requested("90.00", "A-7", TOO_MUCH, payer="approver", to=("M-1",), due=DUE),
        answer={"outcome": "done", "status": "requested", "to": ["M-1"], "due": DUE, "reasons": [TOO_MUCH]},
    )


def test_the_answer_of_an_escalation_has_the_documented_form() -> None:
    found = given(company()).when(ask("90.00"))
    found.then(OPENED, requested("90.00", "A-7", TOO_MUCH, payer="approver", to=("M-1",), due=DUE))
    assert encode(found.answer).decode() == (
        '{"outcome":"done","escalation_id":"esc-' + DIGITS + '","status":"requested",'
        '"amount":{"amount":"90.00","currency":"GBP"},"position":10,"to":["M-1"],"due":"2026-03-12T09:00:00Z",'
        '"reasons":[{"rule":"per_action","message":"more than this role may give in one action of this kind",'
        '"limit":{"amount":"50.00","currency":"GBP"},"used":{"amount":"0.00","currency":"GBP"},'
        '"asked":{"amount":"90.00","currency":"GBP"}}]}'
    )


def test_the_ids_of_an_escalation_and_its_action_have_the_same_digits() -> None:
    given(company()).when(ask("90.00")).then(
        OPENED,
        requested(
            "90.00",
            "A-7",
            TOO_MUCH,
            escalation_id="esc-" + DIGITS,
            action_id="act-" + DIGITS,
            payer="approver",
            to=("M-1",),
            due=DUE,
        ),
    )


def test_an_amount_beyond_the_manager_goes_to_the_next_manager_above() -> None:
    given(company()).when(ask("600.00")).then(
        OPENED, requested("600.00", reasons=ANY, payer="approver", to=("X-1",), due=DUE)
    )


def test_a_kind_that_the_manager_does_not_approve_goes_to_the_next_manager_above() -> None:
    given(company()).when(ask("5.00", kind="credit")).then(
        OPENED, requested("5.00", "A-7", why("kind", asked="5.00"), payer="approver", to=("X-1",), due=DUE)
    )


def test_a_manager_who_has_left_is_not_asked() -> None:
    given(company(), left("M-1")).when(ask("90.00")).then(
        OPENED, requested("90.00", "A-7", TOO_MUCH, payer="approver", to=("X-1",), due=DUE)
    )


@rule("where no manager above has the right, all employees with the right are asked")
def test_where_no_manager_above_has_the_right_all_employees_with_the_right_are_asked() -> None:
    staff = joined("L-1", "agent"), moved("A-7", "agent", "phone", manager_id="L-1")
    given(company(), *staff).when(ask("90.00")).then(
        OPENED,
        requested("90.00", "A-7", TOO_MUCH, payer="approver", to=("M-1", "M-2", "X-1"), due=DUE, manager_id="L-1"),
    )


def test_a_manager_whom_no_source_announced_is_not_asked() -> None:
    staff = moved("A-7", "agent", "phone", manager_id="N-1")
    given(company(default_role="manager"), staff).when(ask("90.00")).then(
        OPENED,
        requested("90.00", "A-7", TOO_MUCH, payer="approver", to=("M-1", "M-2", "X-1"), due=DUE, manager_id="N-1"),
    )


@rule("where no known person may approve it, the answer says so")
def test_where_no_known_person_may_approve_the_answer_says_so() -> None:
    found = given(company(), left("X-1")).when(ask("600.00"))
    found.then(
        OPENED,
        requested("600.00", reasons=ANY, payer="approver", to=(), due=DUE),
        answer={"status": "requested", "to": []},
    )
    assert "announce one before `due`" in found.answer["message"]


@rule("without a known manager, all employees with the right are asked")
def test_without_a_known_manager_all_employees_with_the_right_are_asked() -> None:
    given(company(), moved("A-7", "agent", "phone")).when(ask("90.00")).then(
        OPENED, requested("90.00", "A-7", TOO_MUCH, payer="approver", to=("M-1", "M-2", "X-1"), due=DUE)
    )


def test_without_a_known_manager_the_requester_and_those_who_left_are_not_asked() -> None:
    given(company(), moved("M-2", "manager"), left("M-1")).when(ask("450.00", "M-2")).then(
        opened("agent:M-2", "2000.00"), requested("450.00", "M-2", payer="approver", to=("X-1",), due=DUE)
    )


def test_at_most_twenty_employees_are_asked() -> None:
    managers = [joined(f"N-{number:02}", "manager") for number in range(25)]
    found = given(company(), *managers, moved("A-7", "agent")).when(ask("90.00"))
    assert len(found.answer["to"]) == 20


def test_the_policy_says_how_long_an_escalation_waits() -> None:
    soon = {"payer": "approver", "after_hours": 2, "then": "next_level"}
    given(company(escalation=soon)).when(ask("90.00")).then(
        OPENED, requested("90.00", "A-7", TOO_MUCH, payer="approver", to=("M-1",), due="2026-03-10T11:00:00Z")
    )


def test_an_escalation_is_filed_within_authority_too() -> None:
    given(company()).when(ask("5.00")).then(
        OPENED, requested("5.00", payer="approver", to=("M-1",), due=DUE), answer={"status": "requested", "reasons": []}
    )


def test_an_escalation_for_lack_of_training_is_filed() -> None:
    given(company()).when(ask("5.00", kind="keep_item")).then(
        OPENED, requested("5.00", "A-7", why("training", asked="5.00"), payer="approver", to=("M-1",), due=DUE)
    )


def test_an_escalation_beyond_the_budget_is_filed() -> None:
    given(company(), taken("200.00", kind="fix")).when(ask("5.00")).then(
        requested(
            "5.00",
            "A-7",
            why("budget", limit="200.00", used="200.00", asked="5.00"),
            payer="approver",
            to=("M-1",),
            due=DUE,
        )
    )


def test_an_escalation_copies_its_request() -> None:
    request = ask(
        "90.00", customer_id="C-9", interaction_id="I-1", order_id="O-1", note="an old customer", team_id="phone"
    )
    given(company()).when(request).then(
        OPENED,
        requested(
            "90.00",
            reasons=ANY,
            payer="approver",
            to=("M-1",),
            due=DUE,
            customer_id="C-9",
            interaction_id="I-1",
            order_id="O-1",
            note="an old customer",
            team_id="phone",
        ),
    )


# ---------------------------------------------------------------------- refused


@rule("an escalation that no role may approve is refused")
def test_an_escalation_that_no_role_may_approve_is_refused() -> None:
    given(company()).when(ask("2000.01")).then(
        OPENED,
        fell_short(
            "2000.01",
            "refused",
            why("per_action", limit="50.00", used="0.00", asked="2000.01"),
            why("budget", limit="200.00", used="0.00", asked="2000.01"),
            why("approves", asked="2000.01"),
        ),
        answer={"outcome": "refused"},
    )


@pytest.mark.parametrize(
    ("event", "fields", "reason"),
    [
        (left("A-7"), {}, "left"),
        (linked("A-7", "C-9"), {"customer_id": "C-9"}, "self_dealing"),
        (trained("A-7"), {"kind": "gift"}, "kind"),
    ],
)
def test_a_request_that_is_refused_is_not_escalated(event: object, fields: dict[str, str], reason: str) -> None:
    found = given(company(), event).when(ask("5.00", **fields))  # type: ignore[arg-type]
    found.then(OPENED, fell_short("5.00", "refused", reasons=ANY))
    assert [one.rule for one in found.answer["reasons"]] == [reason]


def test_a_source_may_not_escalate_for_a_role_that_the_policy_does_not_give_it() -> None:
    given(company(sources={"crm": ["manager"]})).when(ask("90.00")).then(
        OPENED, fell_short("90.00", "refused", why("source"))
    )


def test_an_unknown_agent_escalates_nothing() -> None:
    given(company()).when(ask("90.00", "A-99")).refused_with("unknown_agent", "agent_id")


def test_without_a_policy_nothing_is_escalated() -> None:
    given(STAFF).when(ask("90.00")).refused_with("no_policy")


def test_before_the_lack_of_a_policy_is_an_error_the_decider_reads_on() -> None:
    given(STAFF).when(ask("90.00"), current=False).retries(Retry.AFTER_CATCH_UP)


# ---------------------------------------------------------------------- by an action


@rule("an action with `escalate: true` files the escalation where the agent may not act")
def test_an_action_beyond_authority_files_its_escalation_at_once() -> None:
    digits = hashlib.sha256(b"crm\nr-1").hexdigest()[:32]
    given(company()).when(action("90.00", escalate=True)).then(
        OPENED,
        fell_short("90.00", "escalate", TOO_MUCH, escalation_id="esc-" + digits),
        requested("90.00", "A-7", TOO_MUCH, payer="approver", to=("M-1",), due=DUE),
        answer={"outcome": "escalate", "escalation_id": "esc-" + digits, "reasons": [TOO_MUCH]},
    )


def test_an_action_beyond_authority_files_nothing_unasked() -> None:
    found = given(company()).when(action("90.00"))
    found.then(OPENED, fell_short("90.00", "escalate", TOO_MUCH))
    assert "escalation_id" not in found.answer


def test_an_action_within_authority_files_nothing() -> None:
    given(company()).when(action("5.00", escalate=True)).then(OPENED, taken("5.00", limits=ANY, authority="own"))


def test_an_action_that_no_role_may_approve_is_refused_where_it_would_be_filed() -> None:
    given(company()).when(action("2000.01", escalate=True)).then(
        OPENED, fell_short("2000.01", "refused", reasons=ANY), answer={"outcome": "refused"}
    )


def test_an_action_that_is_refused_files_nothing() -> None:
    given(company()).when(action("5.00", kind="gift", escalate=True)).then(
        OPENED, fell_short("5.00", "refused", why("kind", asked="5.00"))
    )


# ---------------------------------------------------------------------- the team pays


@rule("where the team pays, its pool reserves the amount until the decision")
def test_the_pool_of_the_team_reserves_the_amount() -> None:
    scenario = (
        given(company(escalation=TEAM_PAYS))
        .when(ask("35.00", "D-1", kind="credit"))
        .then(
            opened("agent:D-1", "200.00"),
            requested(
                "35.00",
                "D-1",
                why("kind", asked="35.00"),
                payer="team",
                holder="team:doorstep",
                to=("X-1",),
                due=DUE,
            ),
            opened("team:doorstep", "40.00"),
            held("35.00", "D-1", holder="team:doorstep", escalation_id="esc-" + DIGITS, limits=ANY),
        )
    )
    pool = scenario.budget("team:doorstep")
    assert (pool.reserved_minor, pool.remaining_minor) == (3500, 500)


def test_where_the_approver_pays_the_pool_reserves_nothing() -> None:
    given(company()).when(ask("90.00", "D-1")).then(
        opened("agent:D-1", "200.00"), requested("90.00", "D-1", TOO_MUCH, payer="approver", to=("M-1",), due=DUE)
    )


def test_an_escalation_above_the_rest_of_the_pool_is_refused() -> None:
    given(company(escalation=TEAM_PAYS)).when(ask("40.01", "D-1", kind="credit")).then(
        opened("agent:D-1", "200.00"),
        fell_short(
            "40.01",
            "refused",
            why("kind", asked="40.01"),
            why("payer", limit="40.00", used="0.00", asked="40.01"),
        ),
    )


def test_money_that_was_drawn_from_the_pool_cannot_be_reserved() -> None:
    draw = drawn("team:doorstep", "out", "agent:D-2", "30.00", action_id="act-02")
    given(company(escalation=TEAM_PAYS), draw).when(ask("10.01", "D-1", kind="credit")).then(
        opened("agent:D-1", "200.00"),
        fell_short(
            "10.01",
            "refused",
            why("kind", asked="10.01"),
            why("payer", limit="10.00", used="0.00", asked="10.01"),
        ),
    )


def test_the_reservation_records_what_the_pool_had_spent_and_reserved() -> None:
    earlier = (
        held("10.00", "D-2", holder="team:doorstep", escalation_id="esc-2", action_id="act-02"),
        taken("5.00", "D-2", holder="team:doorstep", action_id="act-03"),
    )
    given(company(escalation=TEAM_PAYS), *earlier).when(ask("25.00", "D-1", kind="credit")).then(
        opened("agent:D-1", "200.00"),
        requested("25.00", "D-1", reasons=ANY, payer="team", holder="team:doorstep", to=("X-1",), due=DUE),
        held("25.00", "D-1", holder="team:doorstep", escalation_id=ANY, limits=met(pool=("40.00", "15.00"))),
    )


def test_a_team_without_a_pool_leaves_the_payment_to_the_approver() -> None:
    given(company(escalation=TEAM_PAYS)).when(ask("90.00")).then(
        OPENED, requested("90.00", "A-7", TOO_MUCH, payer="approver", to=("M-1",), due=DUE)
    )


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
def test_what_is_owed_is_not_reserved_in_the_pool(basis: str) -> None:
    given(company(escalation=TEAM_PAYS), paid("O-1", "90.00")).when(
        ask("90.00", "D-1", basis=basis, order_id="O-1")
    ).then(
        opened("agent:D-1", "200.00"),
        requested("90.00", "D-1", payer="team", holder="team:doorstep", to=("M-1",), due=DUE, owed="90.00"),
        opened("team:doorstep", "40.00"),
        held("90.00", "D-1", holder="team:doorstep", escalation_id=ANY, limits=ANY, owed="90.00"),
        answer={"explanation": "90.00 of 90.00 is shown as owed"},
    )


def test_an_action_that_files_its_escalation_reserves_in_the_pool() -> None:
    given(company(escalation=TEAM_PAYS)).when(action("35.00", "D-1", kind="credit", escalate=True)).then(
        opened("agent:D-1", "200.00"),
        fell_short("35.00", "escalate", why("kind", asked="35.00"), escalation_id=ANY),
        requested("35.00", reasons=ANY, agent_id="D-1", payer="team", holder="team:doorstep", to=("X-1",), due=DUE),
        opened("team:doorstep", "40.00"),
        held("35.00", "D-1", holder="team:doorstep", escalation_id=ANY, limits=ANY),
    )
