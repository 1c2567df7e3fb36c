"""Every figure of what-if, and of the limits that the gap recommends, against SQL over the replayed events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.money import Money
from domain.policy.parsing import read_policy
from projections.reports.limit_simulation import policy_with_limit
from tests.support.organisations import BASIC_POLICY
from tests.support.report_oracle import HistoryLedger
from tests.support.what_if_histories import (
    WhatIfHistory,
    limit_differences,
    log_differences,
    simulated_differences,
    what_if_differences,
)


@settings(max_examples=settings().max_examples // 5, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((1, 20, 150)))
def test_another_policy_over_random_histories(seed: int, requests: int) -> None:
    assert what_if_differences(HistoryLedger(WhatIfHistory(seed, requests).events())) == []


@settings(max_examples=max(1, settings().max_examples // 25), deadline=None)
@given(st.integers(0, 10**6))
def test_the_whole_log_from_a_decision_on_and_with_flags(seed: int) -> None:
    assert log_differences(HistoryLedger(WhatIfHistory(seed, 60).events())) == []


@settings(max_examples=max(1, settings().max_examples // 50), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((150, 400)))
def test_the_effects_of_recommended_limits(seed: int, requests: int) -> None:
    ledger = HistoryLedger(WhatIfHistory(seed, requests, generous=True).events())
    assert simulated_differences(ledger) == []


@settings(max_examples=max(1, settings().max_examples // 40), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((20, 80)))
def test_the_effect_of_another_limit(seed: int, days: int) -> None:
    assert limit_differences(HistoryLedger(WhatIfHistory(seed, 90, days=days).events())) == []


@pytest.mark.parametrize(("kind", "ends"), [("refund", True), ("credit", False)])
def test_a_limit_for_all_teams_ends_the_trial_of_the_same_limit(kind: str, ends: bool) -> None:
    limit = {"role": "agent", "kind": "refund", "amount": "70.00"}
    trial = {"limit": limit, "share_of_teams": 0.5, "seed": 7, "until": "2036-03-01T00:00:00Z"}
    policy = read_policy(BASIC_POLICY | {"trial": trial})
    changed = read_policy(policy_with_limit(policy, "agent", kind, Money(6000, "GBP")))
    assert (changed.trial is None) == ends
    assert changed.roles["agent"].limits[kind] == Money(6000, "GBP")
