"""Every figure of each report against SQL over the replayed events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.report_comparisons import (
    gap_differences,
    loyalty_differences,
    quality_differences,
    recognition_differences,
)
from tests.support.report_histories import RandomHistory
from tests.support.report_oracle import HistoryLedger

COMPARISONS = {
    "gap": gap_differences,
    "loyalty": loyalty_differences,
    "quality": quality_differences,
    "recognition": recognition_differences,
}


@pytest.mark.parametrize("report", COMPARISONS)
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((0.1, 0.5, 1.0)))
def test_the_figures_of_random_histories(report: str, seed: int, scale: float) -> None:
    assert COMPARISONS[report](HistoryLedger(RandomHistory(seed, scale).events())) == []
