"""The reports of a range of days against SQL over the replayed events of that range, and in any order of the facts."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.date_ranges import DateRange
from projections.reading import AccessScope
from projections.reports.beyond_authority import beyond_authority
from projections.reports.consistency import consistency_report
from projections.reports.empowerment_gap import gap_report
from projections.reports.service_quality import quality_report
from tests.support.edge_histories import GapEdges
from tests.support.range_comparisons import range_differences
from tests.support.report_histories import BEGIN, RandomHistory, money, numbered
from tests.support.report_oracle import HistoryLedger

if TYPE_CHECKING:
    from tests.support.documents import Document

ALL = DateRange(None, None, ZoneInfo("UTC"))
SOME = DateRange(BEGIN + timedelta(days=20), BEGIN + timedelta(days=65), ZoneInfo("UTC"))


@settings(max_examples=max(1, settings().max_examples // 10), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((0.1, 1.0, 6.0)))
def test_the_reports_of_some_days(seed: int, scale: float) -> None:
    assert range_differences(HistoryLedger(RandomHistory(seed, scale).events())) == []


def test_a_matter_belongs_to_the_days_of_its_first_attempt() -> None:
    """One that was escalated in between is not blocked in the days of a second attempt."""
    history = RandomHistory(1, 0.0)
    short: Document = {"agent_id": "A-0", "role": "agent", "basis": "goodwill", "kind": "refund", "reason": "late"}
    short |= {"amount": money(5001), "outcome": "escalate", "reasons": [], "preview": False}
    asked: Document = {"escalation_id": "e", "action_id": "act-e", "budget": "agent:A-0", "period": "2026-01"}
    asked |= {"currency": "GBP", "payer": "approver", "to": ["M"], "due": BEGIN.isoformat(), "policy_version": 1}
    days = {"escalated": (10, 30), "blocked": (11, 31)}
    for interaction, tries in days.items():
        for day in tries:
            at = BEGIN + timedelta(days=day)
            history._decide("authority.fell_short", at, **short, interaction_id=interaction)
        if interaction == "escalated":
            request = {
                name: short[name] for name in ("agent_id", "role", "basis", "kind", "reason", "amount", "reasons")
            }
            filed = BEGIN + timedelta(days=11)
            history._decide("escalation.requested", filed, **asked, **request, interaction_id=interaction)
    ledger = HistoryLedger(numbered(history._events, BEGIN + timedelta(days=90)))
    assert range_differences(ledger) == []
    assert ledger.report(beyond_authority, SOME)["items"] == []
    early = ledger.report(beyond_authority, DateRange(BEGIN, SOME.begin, SOME.zone))["items"]
    assert [(one["asked"], one["silent"]) for one in early] == [(1, 1)]


def test_the_reports_of_some_days_at_the_edges_of_the_definitions() -> None:
    assert range_differences(HistoryLedger(GapEdges(1).events())) == []


@pytest.mark.parametrize("seed", [2, 6])
def test_all_days_are_the_whole_reports(seed: int) -> None:
    """Also for a reader of some people and one team."""
    ledger = HistoryLedger(RandomHistory(seed, 8.0).events())
    some = AccessScope(frozenset(("A-0", "A-2")), frozenset(("west",)))
    for scope in (AccessScope(None, frozenset()), some):
        gap = ledger.report(gap_report, ledger.published, scope=scope)
        assert ledger.report(beyond_authority, ALL, scope)["items"] == gap["cannot_do"]
        quality = ledger.report(quality_report, scope=scope)
        assert ledger.report(consistency_report, ALL, scope)["items"] == quality["consistency"]


def test_any_order_of_the_facts_gives_the_same_reports() -> None:
    events = RandomHistory(7, 6.0).events()
    facts = [at for at, one in enumerate(events) if one["source"] != "resolution-ledger" and "corrects" not in one]
    moved = [events[at] for at in facts]
    random.Random(7).shuffle(moved)
    other: list[Document] = [*events]
    for at, one in zip(facts, moved, strict=True):
        other[at] = one | {"position": events[at]["position"], "recordedtime": events[at]["recordedtime"]}
    reports = []
    for ledger in (HistoryLedger(events), HistoryLedger(other)):
        beyond, even = ledger.report(beyond_authority, SOME), ledger.report(consistency_report, SOME)
        assert beyond["items"]
        reports.append((beyond["items"], even["items"]))
    assert reports[0] == reports[1]
