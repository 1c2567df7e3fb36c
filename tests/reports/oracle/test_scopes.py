"""Reports for a reader of some people and one team, against the oracle over the events of these."""

import pytest

from tests.support.oracle_histories import SEEDS
from tests.support.report_comparisons import scope_differences
from tests.support.report_histories import RandomHistory
from tests.support.report_oracle import HistoryLedger


@pytest.mark.parametrize("report", ["gap", "quality", "recognition"])
def test_a_reader_of_some_people_gets_the_figures_of_these(report: str) -> None:
    seed, scale = SEEDS[0]
    assert scope_differences(report, HistoryLedger(RandomHistory(seed, scale).events())) == []
