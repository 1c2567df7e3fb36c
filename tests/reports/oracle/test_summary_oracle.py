"""Every figure of the summary against SQL over the replayed events, and against report quality."""

from __future__ import annotations

from datetime import UTC, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from projections.date_ranges import DateRange
from projections.reports.service_quality import quality_report
from projections.reports.summary import summary
from tests.support.report_histories import BEGIN, RandomHistory
from tests.support.report_oracle import HistoryLedger
from tests.support.summary_comparisons import summary_differences


@settings(max_examples=settings().max_examples * 2 // 5, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from((0.1, 1.0)),
    st.tuples(st.integers(0, 110), st.integers(1, 60)),
    st.sampled_from(("UTC", "Europe/London", "Asia/Kathmandu", "America/St_Johns")),
)
def test_the_summary_of_random_histories(seed: int, scale: float, days: tuple[int, int], zone: str) -> None:
    first, count = days
    begin = (BEGIN + timedelta(days=first)).astimezone(ZoneInfo(zone)).replace(hour=0)
    ledger = HistoryLedger(RandomHistory(seed, scale).events())
    end = begin + timedelta(days=count)
    assert summary_differences(ledger, begin.astimezone(UTC), end.astimezone(UTC), zone) == []


@settings(max_examples=max(1, settings().max_examples // 10), deadline=None)
@given(st.integers(0, 10**6))
def test_the_summary_and_the_quality_report_agree(seed: int) -> None:
    """One definition of each figure: that of first contact was written twice."""
    ledger = HistoryLedger(RandomHistory(seed).events())
    report = ledger.report(quality_report)
    quality = report["overall"]
    found = ledger.report(summary, DateRange(None, None, ZoneInfo("UTC")))["total"]
    total = found["interactions"]
    names = ("resolved", "first_contact", "transferred", "mean_transfers", "reopened", "stories_repeated")
    assert {name: total[name] for name in names} == {name: quality[name] for name in names}
    assert found["satisfaction"] == report["satisfaction"]
