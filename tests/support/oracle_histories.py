"""Fixed histories for the oracles of reports: they reach the boundaries of the definitions, and are built once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import UTC, timedelta
from functools import partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.support.career_histories import CareerHistory, career_differences
from tests.support.edge_histories import NO_HOURS, OTHER_MINUTES, GapEdges, PeopleEdges, QualityEdges
from tests.support.explanation_comparisons import (
    GoldenLog,
    case_differences,
    explanation_differences,
    foundation_differences,
)
from tests.support.loyalty_comparisons import loyalty_differences, value_differences
from tests.support.loyalty_histories import LoyaltyHistory, PairEdges
from tests.support.range_comparisons import range_differences
from tests.support.report_comparisons import (
    EARLIER,
    as_of_differences,
    gap_differences,
    quality_differences,
    recognition_differences,
    scope_differences,
    story_differences,
)
from tests.support.report_histories import BEGIN, RandomHistory
from tests.support.report_oracle import HistoryLedger
from tests.support.summary_comparisons import summary_differences
from tests.support.unused_comparisons import unused_differences
from tests.support.what_if_histories import (
    WhatIfHistory,
    later_differences,
    limit_differences,
    log_differences,
    simulated_differences,
    what_if_differences,
)

SEEDS = ((3, 1.0), (7, 1.0), (11, 2.0), (19, 4.0), (5, 0.1), (23, 8.0), (29, 8.0), (31, 4.0), (37, 0.5), (41, 2.0))
"""Seeds and scales of random histories."""
LOYALTY = (
    *(
        LoyaltyHistory(40 + helped, helped, 0.9, 40 + 4 * helped)
        for helped in (2, 3, 7, 14, 20, 22, 24, 26, 28, 31, 34)
    ),
    LoyaltyHistory(5, 60, 1.0, 140, selected=True),
    LoyaltyHistory(8, 70, 0.0, 600, selected=True),
    LoyaltyHistory(3, 90),
    LoyaltyHistory(6, 140),
)
"""Histories of customers: few that are helped, so that figures begin to be shown, and many."""
LOYALTY_EDGES = (
    *(LoyaltyHistory(seed, 60, margins=margins) for seed, margins in ((11, 0.3), (12, 0.5), (13, 0.498))),
    *(PairEdges(helped, day) for helped in (19, 20, 21) for day in (0, 1, 180, 181)),
)
"""Histories in which figures are on a bound: half of the margins known, twenty pairs, payback on the last day."""
type Comparison = Callable[[HistoryLedger], list[str]]
_COMPARISONS: dict[str, Comparison] = {
    "gap": gap_differences,
    "loyalty": loyalty_differences,
    "quality": quality_differences,
    "recognition": recognition_differences,
}


class Check(NamedTuple):
    """A comparison of a report with its oracle over one history; ``differs`` runs it again."""

    name: str
    differs: Callable[[], bool]


def checks_of(report: str) -> list[Check]:
    """Return the checks of a report over the fixed histories; the oracle's figures are computed once."""
    if report == "explanation":
        return _explanations()
    return [_check(f"{name} {number}", ledger, compare) for number, (name, ledger, compare) in enumerate(_made(report))]


def _explanations() -> list[Check]:
    log = GoldenLog()
    events, connection = log.documents(), log.trail().connect()

    def differs(compare: Callable[..., Coroutine[Any, Any, list[str]]]) -> Callable[[], bool]:
        return lambda: bool(asyncio.run(compare(log, connection, events)))

    comparisons = (explanation_differences, foundation_differences, case_differences)
    return [Check(one.__name__, differs(one)) for one in comparisons]


def _check(name: str, ledger: HistoryLedger, compare: Comparison) -> Check:
    ledger.keep_figures()
    if isinstance(compare, partial):
        ledger.earlier(EARLIER).keep_figures()
    return Check(name, lambda: bool(compare(ledger)))


type Made = Iterator[tuple[str, HistoryLedger, Comparison]]


def _made(report: str) -> Made:
    """Yield the comparisons of a report, each with a name and its history."""
    return _MADE[report]()


def _random() -> list[HistoryLedger]:
    return [HistoryLedger(RandomHistory(seed, scale).events()) for seed, scale in SEEDS]


def _over(report: str, ledgers: Iterable[HistoryLedger]) -> Made:
    """Yield the comparison of a report now over some histories, and the others over the first four.

    The others are the report as of a past position, and that of a reader who may see some people and one team.
    """
    for number, ledger in enumerate(ledgers):
        yield report, ledger, _COMPARISONS[report]
        if number < _AS_OF:
            yield f"{report} as of", ledger, partial(as_of_differences, report)
            yield f"{report} of a scope", ledger, partial(scope_differences, report)


_AS_OF = 4


def _unused_authority() -> Made:
    for ledger in _random():
        yield "unused authority", ledger, unused_differences


def _gap() -> Made:
    yield from _over("gap", _random())
    for policy in (None, OTHER_MINUTES, NO_HOURS):
        yield "gap, policy", HistoryLedger(RandomHistory(29, 8.0, policy=policy).events()), gap_differences
    edges = HistoryLedger(GapEdges(1).events())
    yield "gap, edges", edges, gap_differences
    yield "gap, edges, of a scope", edges, partial(scope_differences, "gap")
    for seed in (1, 2):
        ledger = _what_if(seed, 900, generous=True)
        yield "simulated", ledger, simulated_differences
        yield "simulated, as of", ledger, partial(as_of_differences, "gap")
    for days in (20, 80):
        yield "limit", HistoryLedger(WhatIfHistory(5, 300, days=days).events()), limit_differences
    yield (
        "simulated, 28 days",
        HistoryLedger(WhatIfHistory(4, 600, generous=True, days=28).events()),
        simulated_differences,
    )


def _quality() -> Made:
    ledgers = _random()
    yield from _over("quality", ledgers)
    edges = HistoryLedger(QualityEdges(1).events())
    yield "quality, edges", edges, quality_differences
    many = HistoryLedger(RandomHistory(52, 8.0).events())  # enough of each reason to compare channels and teams
    yield "quality, by reason", many, quality_differences
    for ledger in (*ledgers[:3], edges):
        yield "story", ledger, story_differences


def _recognition() -> Made:
    yield from _over("recognition", _random())
    for seed in (1, 2):
        edges = HistoryLedger(PeopleEdges(seed).events())
        yield "recognition, edges", edges, recognition_differences
        yield "recognition, edges, of a scope", edges, partial(scope_differences, "recognition")


def _loyalty() -> Made:
    for one in (*LOYALTY, *LOYALTY_EDGES):
        yield "value", HistoryLedger(one.events()), value_differences


def _simulations() -> Made:
    for seed in (1, 2, 3):
        ledger = _what_if(seed, 150, generous=False)
        yield "what-if", ledger, what_if_differences
        yield "log", ledger, log_differences
    yield "a version later", HistoryLedger(WhatIfHistory(4, 150, again=True).events()), later_differences


def _summary() -> Made:
    for ledger in _random()[:5]:
        yield "summary", ledger, _summary_differences


def _ranges() -> Made:
    for ledger in (*_random()[:6], HistoryLedger(GapEdges(1).events())):
        yield "ranges", ledger, range_differences


def _careers() -> Made:
    for seed, scale in SEEDS[:3]:
        yield "careers", HistoryLedger(CareerHistory(seed, scale).events()), career_differences


_MADE: dict[str, Callable[[], Made]] = {
    "careers": _careers,
    "gap": _gap,
    "loyalty": _loyalty,
    "quality": _quality,
    "ranges": _ranges,
    "recognition": _recognition,
    "unused_authority": _unused_authority,
    "summary": _summary,
    "what_if": _simulations,
}


def _what_if(seed: int, requests: int, *, generous: bool) -> HistoryLedger:
    return HistoryLedger(WhatIfHistory(seed, requests, generous=generous).events())


def _summary_differences(ledger: HistoryLedger) -> list[str]:
    found = summary_differences(ledger, None, None, "UTC")
    for zone, first, count in (("Europe/London", 10, 30), ("Asia/Kathmandu", 60, 31)):
        begin = (BEGIN + timedelta(days=first)).astimezone(ZoneInfo(zone)).replace(hour=0, minute=0)
        end = begin + timedelta(days=count)
        found += summary_differences(ledger, begin.astimezone(UTC), end.astimezone(UTC), zone)
    return found
