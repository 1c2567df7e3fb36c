"""The period that `report unused-authority` begins with."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from domain.periods import days_of
from projections.reports.unused_authority import unused_authority
from tests.support.report_histories import RandomHistory
from tests.support.report_oracle import HistoryLedger


@pytest.mark.long
def test_a_period_that_goes_on_is_not_whole_though_actions_of_later_days_are_recorded() -> None:
    """A clock that is wrong at a source dates an action into the future."""
    now = datetime(2026, 3, 20, tzinfo=UTC)
    ledger = HistoryLedger(RandomHistory(11, 2.0).events())  # it goes on until May
    period = ledger.report(unused_authority, ledger.published, now)["period"]
    assert days_of(period)[1] <= now.date(), period
