"""The role and the team of what other systems reported against SQL over the events, recorded in any order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.career_histories import CareerHistory, career_differences
from tests.support.report_oracle import HistoryLedger


@settings(max_examples=max(1, settings().max_examples // 40), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((0.2, 1.0)))
def test_the_posts_of_random_histories(seed: int, scale: float) -> None:
    assert career_differences(HistoryLedger(CareerHistory(seed, scale).events())) == []
