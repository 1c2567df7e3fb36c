"""Fixed histories for the oracles of reports: they reach the boundaries of the definitions, and are built once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from tests.support.loyalty_comparisons import loyalty_differences, value_differences
from tests.support.loyalty_histories import LoyaltyHistory
from tests.support.report_comparisons import (
    as_of_differences,
    gap_differences,
    quality_differences,
    recognition_differences,
    story_differences,
)
from tests.support.report_histories import BEGIN, RandomHistory
from tests.support.report_oracle import HistoryLedger
from tests.support.summary_comparisons import summary_differences
from tests.support.what_if_histories import WhatIfHistory, log_differences, simulated_differences, what_if_differences

SEEDS = ((3, 1.0), (7, 1.0), (11, 2.0), (19, 4.0), (5, 0.1), (23, 8.0), (29, 8.0), (31, 4.0), (37, 0.5), (41, 2.0))
"""Seeds and scales of random histories."""
LOYALTY = (
    *(LoyaltyHistory(40 + helped, helped, 0.9, 40 + 4 * helped) for helped in (2, 6, 14, 20, 22, 24, 26, 28, 31, 34)),
    LoyaltyHistory(5, 60, 1.0, 140, selected=True),
    LoyaltyHistory(8, 70, 0.0, 600, selected=True),
    LoyaltyHistory(3, 90),
    LoyaltyHistory(6, 140),
)
"""Histories of customers: few that are helped, so that figures begin to be shown, and many."""
LOYALTY_VIEWS = ("loyalty_effects", "casework", "journeys")
type Check = Callable[[HistoryLedger], list[str]]
_COMPARISONS: dict[str, Check] = {
    "gap": gap_differences,
    "loyalty": loyalty_differences,
    "quality": quality_differences,
    "recognition": recognition_differences,
}


def checks_of(report: str) -> Callable[[], bool]:
    """Return a function that tells whether a report differs from its oracle over one of the fixed histories."""
    checks = [_kept(ledger, compare, report) for ledger, compare in _ledgers(report)]
    return lambda: any(check() for check in checks)


def _kept(ledger: HistoryLedger, check: Check, report: str) -> Callable[[], bool]:
    if report in _COMPARISONS and not isinstance(check, partial) and check is not simulated_differences:
        ledger.keep_figures(report)
    if isinstance(check, partial):
        ledger.earlier(0.6).keep_figures(report)
    return lambda: bool(check(ledger))


def _ledgers(report: str) -> list[tuple[HistoryLedger, Check]]:
    if report == "loyalty":
        return [(HistoryLedger(one.events(), LOYALTY_VIEWS), value_differences) for one in LOYALTY]
    if report == "what_if":
        ledgers = [_what_if(seed, 150, generous=False) for seed in (1, 2, 3)]
        return [(one, check) for one in ledgers for check in (what_if_differences, log_differences)]
    ledgers = [HistoryLedger(RandomHistory(seed, scale).events()) for seed, scale in SEEDS]
    if report == "summary":
        return [(one, _summary_differences) for one in ledgers[:5]]
    found: list[tuple[HistoryLedger, Check]] = [(one, _COMPARISONS[report]) for one in ledgers]
    found += [(one, partial(as_of_differences, report)) for one in ledgers[:4]]
    if report == "gap":
        found += [(_what_if(seed, 900, generous=True), simulated_differences) for seed in (1, 2)]
    if report == "quality":
        found += [(one, story_differences) for one in ledgers[:3]]
    return found


def _what_if(seed: int, requests: int, *, generous: bool) -> HistoryLedger:
    return HistoryLedger(WhatIfHistory(seed, requests, generous=generous).events())


def _summary_differences(ledger: HistoryLedger) -> list[str]:
    found: list[str] = []
    for zone, first, count in (("Europe/London", 10, 30), ("Asia/Kathmandu", 60, 31)):
        begin = (BEGIN + timedelta(days=first)).astimezone(ZoneInfo(zone)).replace(hour=0, minute=0)
        end = begin + timedelta(days=count)
        found += summary_differences(ledger, begin.astimezone(UTC), end.astimezone(UTC), zone)
    return found
