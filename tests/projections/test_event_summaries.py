"""Sentences of the audit trail at the ends of what events may say."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from domain.events.decisions import PolicyApproved
from domain.events.facts import ActionReported, DelegationDeclared, TrainingCompleted
from domain.money import Money
from projections.views.event_summaries import describe

ENDS = (
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-5))),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
)


@pytest.mark.parametrize("at", ENDS)
def test_a_time_without_a_date_in_utc_is_shown_as_it_is(at: datetime) -> None:
    """HR systems write the end of the calendar for "never"; one such event stopped the whole trail."""
    trained = TrainingCompleted(employee_id="A-1", course_id="basics", valid_until=at)
    assert describe(trained).endswith(at.isoformat())
    away = DelegationDeclared(from_employee_id="M-1", to_employee_id="M-2", from_time=at, until_time=at)
    assert at.isoformat() in describe(away)


def test_an_approval_says_what_is_still_wanting() -> None:
    def said(missing: int, version: int | None = None) -> str:
        cause: dict[str, Any] = {"source": "crm", "request_id": "r", "seen_position": 0}
        return describe(PolicyApproved(**cause, sha256="00", approved_by="M-1", missing=missing, version=version))

    assert said(0, 3).endswith("policy version 3")
    assert said(1).endswith("1 more to approve")
    assert said(0).endswith("it waits for its time")


def test_the_kind_of_an_action_is_in_words() -> None:
    told = ActionReported(agent_id="A-1", kind="keep_item", amount=Money.parse("45.00", "GBP"), reason="late")
    assert describe(told) == "reported keep item of 45.00 GBP: late"
