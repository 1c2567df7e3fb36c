"""No figure without an oracle: the comparison with SQL notices a change of any leaf of a report's document."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from domain.policy.parsing import read_policy
from projections.date_ranges import DateRange
from projections.reports.empowerment_gap import gap_report
from projections.reports.loyalty import loyalty_report
from projections.reports.recognition import recognition_report
from projections.reports.service_quality import quality_report
from projections.reports.summary import summary
from tests.support.loyalty_comparisons import value_differences
from tests.support.loyalty_histories import LoyaltyHistory
from tests.support.report_comparisons import gap_differences, quality_differences, recognition_differences
from tests.support.report_histories import BEGIN, RandomHistory
from tests.support.report_leaves import changed, figures_of
from tests.support.report_oracle import HistoryLedger
from tests.support.summary_comparisons import compared as compared_summary
from tests.support.summary_comparisons import oracles_of
from tests.support.what_if_histories import OTHERS, WhatIfHistory, compared, simulated_differences, what_if_report

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from collections.abc import Callable

    from projections.views.totals import By
    from tests.support.documents import Document

    type Case = tuple[HistoryLedger, Document, Callable[[HistoryLedger, Document], list[str]]]

NO_FIGURES = {
    r"caveats\.\*": "a sentence",
    r"position": "the position of the view",
    r"recommended_limits\.\*\.why": "a sentence",
    r"cannot_do\.\*\.text": "the other fields of the item as a sentence",
    r"recommended_limits\.\*\.simulated(\..*)?": "compared by the case `simulated`",
    r"(team|month)\.caveats\.\*": "a sentence",
    r"drawn_customers": "the size of the sample of a large history",
}
"""Patterns of leaves that are no figures, each with its reason; a star stands for any item of a list."""


def gap() -> Case:
    ledger = HistoryLedger(RandomHistory(6, 8.0).events())
    ledger.keep_figures()
    return ledger, ledger.report(gap_report, ledger.published), gap_differences


def simulated() -> Case:
    """Return the effects of recommended limits, which need a history that the policy decided."""
    ledger = HistoryLedger(WhatIfHistory(1, 900, generous=True).events())
    found = ledger.report(gap_report, ledger.published)

    def differences_of(ledger: HistoryLedger, effects: Document) -> list[str]:
        document = {**found, "recommended_limits": [dict(one) for one in found["recommended_limits"]]}
        for name, effect in effects.items():
            place = next(one for one in document["recommended_limits"] if f"{one['role']} {one['kind']}" == name)
            place["simulated"] = effect
        return simulated_differences(ledger, document)

    limits = [one for one in found["recommended_limits"] if one["simulated"] is not None]
    return ledger, {f"{one['role']} {one['kind']}": one["simulated"] for one in limits}, differences_of


def quality() -> Case:
    ledger = HistoryLedger(RandomHistory(2, 10.0).events())
    ledger.keep_figures()
    return ledger, ledger.report(quality_report), quality_differences


def recognition() -> Case:
    ledger = HistoryLedger(RandomHistory(6, 8.0).events())
    ledger.keep_figures()
    return ledger, ledger.report(recognition_report, read_policy(ledger.published[-1].policy)), recognition_differences


def loyalty() -> Case:
    ledger = HistoryLedger(LoyaltyHistory(4, helped=45).events())
    ledger.keep_figures()
    return ledger, ledger.report(loyalty_report, ledger.published), value_differences


def what_if() -> Case:
    ledger = HistoryLedger(WhatIfHistory(1).events())
    return ledger, what_if_report(ledger, OTHERS[0]), lambda one, found: compared(one, OTHERS[0], found)


def summaries() -> Case:
    """Return the summary by team and by month: budgets, reversals and both currencies."""
    ledger = HistoryLedger(RandomHistory(7, 2.0).events())
    ledger.keep_figures()
    times = DateRange(BEGIN + timedelta(days=31), BEGIN + timedelta(days=90), ZoneInfo("Asia/Kathmandu"))
    properties: tuple[By, ...] = ("team", "month")
    found: Document = {by: ledger.report(summary, times, by) for by in properties}
    oracles = oracles_of(ledger, times)
    return (
        ledger,
        found,
        lambda one, of: [line for by in properties for line in compared_summary(one, times, by, of[by], oracles)],
    )


@pytest.mark.parametrize("case", [gap, simulated, quality, recognition, loyalty, what_if, summaries])
def test_a_change_of_any_figure_is_noticed(case: Callable[[], Case]) -> None:
    ledger, found, differences_of = case()
    assert differences_of(ledger, found) == []
    places = figures_of(found)
    assert places
    without = [name for name, place in places.items() if not _is_noticed(ledger, changed(found, place), differences_of)]
    assert [name for name in without if not any(re.fullmatch(pattern, name) for pattern in NO_FIGURES)] == []


def _is_noticed(
    ledger: HistoryLedger, found: Document, differences_of: Callable[[HistoryLedger, Document], list[str]]
) -> bool:
    """Return whether a comparison notices a changed document; it may also fail on it."""
    try:
        return bool(differences_of(ledger, found))
    except (ArithmeticError, LookupError, StopIteration, TypeError, ValueError):
        return True
