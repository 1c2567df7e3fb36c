"""Escalations that another policy would have spared, also those filed by a separate request for the same matter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from domain.events.decisions import AuthorityFellShort, EscalationRequested
from domain.money import Money
from domain.simulation.comparison import OutcomeComparison, decided
from tests.support.documents import Document

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "interaction", "spared"),
    [(0, "I-1", True), (7, "I-1", True), (7.01, "I-1", False), (1, "I-2", False)],
    ids=["at once", "seven days", "too late", "another matter"],
)
def test_an_escalation_by_a_separate_request_is_spared(days: float, interaction: str, spared: bool) -> None:
    cause: Document = {"source": "crm", "request_id": "r", "seen_position": 0}
    of: Document = {
        "agent_id": "A-1",
        "kind": "refund",
        "basis": "goodwill",
        "amount": Money(6000, "GBP"),
        "reason": "late",
    }
    short = AuthorityFellShort(**cause, **of, outcome="escalate", reasons=(), preview=False, interaction_id="I-1")
    filed = EscalationRequested(
        **cause,
        **of,
        interaction_id=interaction,
        escalation_id="E",
        action_id="act-E",
        role="agent",
        reasons=(),
        payer="approver",
        to=("M-1",),
        due=BEGIN,
        policy_version=1,
        budget="agent:A-1",
        period="2026-01",
        currency="GBP",
    )
    comparison = OutcomeComparison()
    comparison.tell(1, BEGIN, decided(short), "taken", ())
    assert comparison.asked(filed, BEGIN + timedelta(days=days)) is spared
    assert [one.escalation_id for one in comparison.spared] == ["E" if spared else None]
