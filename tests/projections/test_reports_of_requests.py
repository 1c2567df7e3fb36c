"""A report with the id of a request is about the same action: views show one action, in any order of both."""

from itertools import permutations
from pathlib import Path

import pytest

from domain.events import decisions
from domain.money import Money
from projections.engine.pages import PageRequest
from projections.views.casework import read_actions
from projections.views.loyalty import read_effects
from tests.support.any_order import ACTION, DECIDED, OPENED, POSTED, History, decision
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.view_histories import Views, recorded

NOTHING = Money(0, "GBP")
TAKEN = decision(decisions.ActionTaken(**ACTION, action_id=DECIDED, authority="own"), "2026-01-05T10:01:30Z")
HELD = decision(decisions.ActionHeld(**ACTION, action_id=DECIDED), "2026-01-05T10:01:30Z")
VOIDED = decision(
    decisions.ActionVoided(**POSTED, action_id=DECIDED, reason="expired"),
    "2026-01-05T10:02:00Z",
)
CHARGED = decision(
    decisions.ActionCharged(**POSTED, action_id=DECIDED, overdrawn=NOTHING, relates_to=1), "2026-01-05T10:03:00Z"
)
MORE = decision(
    decisions.ActionCharged(
        **(POSTED | {"amount": Money(200, "GBP")}),
        action_id=DECIDED,
        overdrawn=NOTHING,
        relates_to=1,
        decided=Money(500, "GBP"),
        reported=Money(700, "GBP"),
    ),
    "2026-01-05T10:03:00Z",
)


def told(amount: str = "7.00") -> Document:
    fields: Document = {"agent_id": "A-2", "kind": "refund", "amount": gbp(amount), "reason": "late"}
    return event("report-1", "action.reported", "crm", "2026-01-05T10:01:00Z", customer_id="C-1", **fields)


NEVER = event("c-1", "fact.corrected", "crm", source_of="crm", id_of="report-1", reason="typed wrongly", data=None)


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("is_corrected", [False, True])
async def test_a_decision_and_its_report_are_one_action(tmp_path: Path, batch: int, is_corrected: bool) -> None:
    story: History = [TAKEN, told(), *([NEVER] if is_corrected else [])]
    for number, order in enumerate(permutations(story)):
        if is_corrected and order.index(NEVER) < order.index(told()):
            continue
        views = Views(tmp_path / f"{number}", ("casework", "loyalty_effects")).take(
            recorded([OPENED, *order, MORE]), batch
        )
        (row,) = (await views.read("casework", read_actions)).result
        assert (row["state"], row["amount"], row["agent_id"], row["agent_kind"]) == (
            "taken",
            gbp("7.00"),
            "A-1",
            "human",
        )
        (effect,) = (await views.read("loyalty_effects", read_effects)).result
        assert (effect["action_id"], effect["agent_id"]) == (DECIDED, "A-1")
        views.close()


@pytest.mark.parametrize("place", range(4))
async def test_a_report_after_its_hold_was_voided_is_charged(tmp_path: Path, place: int) -> None:
    history = [HELD, VOIDED, CHARGED]
    views = Views(tmp_path, ("casework",)).take(recorded([OPENED, *history[:place], told("5.00"), *history[place:]]), 1)
    (row,) = (await views.read("casework", read_actions)).result
    assert (row["state"], row["amount"], row["period"]) == ("charged", gbp("5.00"), "2026-01")
    views.close()


async def test_an_earlier_position_shows_the_report_that_came_first(tmp_path: Path) -> None:
    views = Views(tmp_path, ("loyalty_effects",)).take(recorded([OPENED, told(), TAKEN]), 9)
    (effect,) = (
        await views.read("loyalty_effects", lambda connection: read_effects(connection, PageRequest(at=2)))
    ).result
    assert effect["agent_id"] == "A-2"
    views.close()
