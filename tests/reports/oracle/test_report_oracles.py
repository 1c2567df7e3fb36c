"""Every figure of each report against SQL over the replayed events."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.demo.moments import make_world
from tests.support.environment import DATA, LONG, long_only
from tests.support.forked_cli import CommandLine, json_of
from tests.support.loyalty_comparisons import loyalty_differences, value_differences
from tests.support.loyalty_histories import LoyaltyHistory
from tests.support.prepared_ledgers import DEMO, PreparedLedger
from tests.support.report_comparisons import (
    gap_differences,
    quality_differences,
    recognition_differences,
)
from tests.support.report_histories import RandomHistory
from tests.support.report_oracle import HistoryLedger
from tests.support.unused_comparisons import unused_differences

pytestmark = pytest.mark.long

COMPARISONS = {
    "gap": gap_differences,
    "loyalty": loyalty_differences,
    "quality": quality_differences,
    "recognition": recognition_differences,
    "unused-authority": unused_differences,
}


@pytest.mark.parametrize("report", COMPARISONS)
@settings(max_examples=settings().max_examples * 2 // 5, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((0.1, 0.5, 1.0)))
def test_the_figures_of_random_histories(report: str, seed: int, scale: float) -> None:
    assert COMPARISONS[report](HistoryLedger(RandomHistory(seed, scale).events())) == []


@settings(max_examples=max(1, settings().max_examples // 25), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((30, 90)), st.sampled_from((0.0, 0.5, 1.0)))
def test_the_estimates_of_customer_value(seed: int, helped: int, effect: float) -> None:
    """Pairs and windows come from SQL, statistics from scipy: every evidence level, payback, groups and rates."""
    assert value_differences(HistoryLedger(LoyaltyHistory(seed, helped, effect).events())) == []


SETS = {
    "bpic2013_incidents": ("bpic2013_incidents.csv.gz", "quality"),
    "bpic2020_request_for_payment": ("bpic2020_request_for_payment.csv.gz", "gap"),
    "online_retail": ("online_retail.csv.gz", "loyalty"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=long_only) if name == "bpic2013_incidents" else name for name in SETS],
)
def test_the_figures_of_a_real_data_set(
    command: CommandLine, prepared: Callable[..., PreparedLedger], name: str
) -> None:
    file, report = SETS[name]
    if not (DATA / file).exists():
        pytest.skip(f"{file} is not at ../shared/data")
    events = prepared("import", name, str(DATA / file), "--json").events()
    assert COMPARISONS[report](HistoryLedger(events), json_of(command("report", report, "--json"))) == []


@pytest.mark.timeout(600)
def test_the_figures_and_the_cases_of_the_demo(command: CommandLine, prepared: Callable[..., PreparedLedger]) -> None:
    ledger = HistoryLedger(prepared(*DEMO).events())
    cases = [one["subject"] for one in json_of(command("audit", "cases", "--json"))["items"]]
    planted = {subject for misuse in make_world(8).truth for subject in misuse.subjects}
    assert len(planted.intersection(cases[:5])) == 5
    assert len(cases) <= 7
    for report in COMPARISONS if LONG else ("gap", "quality"):
        differences_of = COMPARISONS[report]
        assert differences_of(ledger, json_of(command("report", report, "--json"))) == [], report
