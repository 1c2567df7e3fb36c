"""The life of an action: the effect of each event, the same for the decider, the views and simulations."""

import msgspec
import pytest

from consumers.decisions.state.actions import HeldFields, StateAction, TakenFields
from domain.actions import ACTION_FIELDS, ActionChange, action_fields, change_of, is_reservation
from domain.commands import ActionRequest
from domain.events import decisions, facts
from domain.events.decisions import TYPE_OF, Posting
from domain.events.facts import FACTS
from domain.money import Money
from tests.support.documents import Document

COMMON: Document = {
    "source": "crm",
    "request_id": "r",
    "seen_position": 0,
    "action_id": "act-1",
    "holder": "agent:A-1",
    "period": "2026-02",
    "agent_id": "A-1",
    "amount": Money(300, "GBP"),
}
SETTLED = decisions.ActionSettled(**COMMON, held=Money(500, "GBP"))
VOIDED = decisions.ActionVoided(**COMMON, reason="voided")
CHARGED = decisions.ActionCharged(**COMMON, overdrawn=Money(0, "GBP"), relates_to=1)
REVERSED = {
    recovered: decisions.ActionReversed(**COMMON, recovered=recovered, reversed_by="A-1", reason="x", relates_to=1)
    for recovered in (True, False)
}


@pytest.mark.parametrize(
    ("posting", "change"),
    [
        (SETTLED, ActionChange("settled", 300)),
        (VOIDED, ActionChange("voided", 0)),
        (CHARGED, ActionChange("charged")),
        (REVERSED[True], ActionChange(None, None, 300, 300)),
        (REVERSED[False], ActionChange(None, None, 300, 0)),
    ],
)
def test_each_later_event_changes_an_action(posting: Posting, change: ActionChange) -> None:
    assert change_of(posting) == change


def test_a_state_is_in_the_stored_type_of_its_event() -> None:
    begins = (decisions.ActionTaken, decisions.ActionHeld)
    for cls in (*begins, decisions.ActionSettled, decisions.ActionVoided, decisions.ActionCharged):
        assert TYPE_OF[cls] == f"resolution.action.{cls.state}.v1"
        assert "state" not in cls.__struct_fields__
    assert FACTS[f"resolution.action.{facts.ActionReported.state}.v1"] is facts.ActionReported
    assert (TakenFields.state, HeldFields.state) == tuple(cls.state for cls in begins)


def test_money_reserved_for_an_escalation_is_not_an_action() -> None:
    fields: Document = {
        "action_id": "a",
        "agent_id": "A",
        "holder": "h",
        "period": "p",
        "source": "s",
        "request_id": "r",
    }
    held = HeldFields(**fields, basis="goodwill", amount=Money(1, "GBP"), escalation_id="esc-1")
    assert is_reservation(held)
    held.escalation_id = None
    assert not is_reservation(held)


def row(basis: facts.Basis = "goodwill") -> StateAction:
    return StateAction(
        agent_id="A-1",
        at=0.0,
        minor=500 if basis == "goodwill" else 0,
        currency="GBP",
        position=1,
        action_id="act-1",
        holder="agent:A-1",
        period="2026-01",
        state="held",
        basis=basis,
        budget_currency="GBP",
        done_minor=500,
        expires_at=1.0,
    )


def test_a_row_of_the_index_follows_its_events() -> None:
    action = row()
    action.apply(SETTLED)
    assert (action.state, action.period, action.minor, action.amount.minor) == ("settled", "2026-02", 300, 300)
    assert action.expires_at is None
    action.apply(REVERSED[False])
    assert (action.state, action.minor, action.left.minor) == ("settled", 300, 0)
    voided = row()
    voided.apply(VOIDED)
    assert (voided.state, voided.period, voided.minor, voided.amount.minor) == ("voided", "2026-01", 0, 0)
    owed = row("entitlement")
    owed.apply(SETTLED)
    owed.apply(REVERSED[True])
    assert (owed.minor, owed.amount.minor, owed.reversed_minor) == (0, 300, 300)


@pytest.mark.parametrize(
    "cls",
    [
        ActionRequest,
        facts.ActionReported,
        decisions.ActionTaken,
        decisions.ActionHeld,
        decisions.AuthorityFellShort,
        decisions.EscalationRequested,
    ],
)
def test_a_request_and_its_records_share_the_fields_of_an_action(cls: type[msgspec.Struct]) -> None:
    assert set(ACTION_FIELDS) <= set(cls.__struct_fields__)


def test_a_record_copies_the_fields_of_its_request() -> None:
    request = ActionRequest(
        request_id="r", agent_id="A-1", kind="gift", amount=Money(1, "GBP"), reason="late", order_id="O-1"
    )
    fields = action_fields(request, Money(2, "GBP"))
    assert fields == {name: getattr(request, name) for name in ACTION_FIELDS} | {"amount": Money(2, "GBP")}
