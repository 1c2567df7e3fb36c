"""Every figure of each report against SQL over the replayed events."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.report_comparisons import gap_differences, quality_differences
from tests.support.report_histories import RandomHistory
from tests.support.report_oracle import HistoryLedger


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((0.1, 0.5, 1.0)))
def test_the_gap_of_random_histories(seed: int, scale: float) -> None:
    assert gap_differences(HistoryLedger(RandomHistory(seed, scale).events())) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((0.1, 0.5, 1.0)))
def test_the_quality_of_random_histories(seed: int, scale: float) -> None:
    assert quality_differences(HistoryLedger(RandomHistory(seed, scale).events())) == []
