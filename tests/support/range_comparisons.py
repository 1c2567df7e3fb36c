"""Comparisons of the reports of a range of days with their oracle: the same events without those outside the range."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from ledger.store.cloudevents import parse_time
from projections.date_ranges import DateRange
from projections.reports.beyond_authority import beyond_authority
from projections.reports.consistency import consistency_report
from tests.support.report_comparisons import consistency_differences
from tests.support.report_histories import BEGIN
from tests.support.report_oracle import HistoryLedger, differences

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.documents import Document

ASKED = frozenset(("resolution.escalation.requested.v1", "resolution.escalation.reported.v1"))
SHORT = frozenset(("resolution.authority.fell_short.v1",))
OPENED = frozenset(("resolution.interaction.opened.v1",))


def some_days(ledger: HistoryLedger) -> list[DateRange]:
    """Return ranges: all days, some in a zone of half hours, and one that begins and ends at events to the microsecond."""
    zone = ZoneInfo("America/St_Johns")
    first = (BEGIN + timedelta(days=20)).astimezone(zone).replace(hour=0)
    some = DateRange(first, first + timedelta(days=45), zone)
    times = sorted({parse_time(one["time"]) for one in ledger.events if one["type"] in ASKED | SHORT | OPENED})
    if len(times) < 3:
        return [DateRange(None, None, zone), some]
    edges = DateRange(times[len(times) // 3], times[2 * len(times) // 3], zone)
    return [
        DateRange(None, None, zone),
        some,
        edges,
        DateRange(None, edges.end, zone),
        DateRange(edges.begin, None, zone),
    ]


def range_differences(ledger: HistoryLedger) -> list[str]:
    """Return the figures of both reports that differ from the oracle's, over some ranges."""
    return [
        line
        for times in some_days(ledger)
        for line in (*beyond_differences(ledger, times), *even_differences(ledger, times))
    ]


def beyond_differences(ledger: HistoryLedger, times: DateRange, found: Document | None = None) -> list[str]:
    """Return the figures beyond authority that differ from the oracle's of `report gap`, over a range alone."""
    found = found or ledger.report(beyond_authority, times)
    items = {(one["kind"], one["reason"]): one for one in found["items"]}
    places: dict[tuple[str, str], Document] = {}
    is_told_outside = told_outside(ledger.events, times)
    for is_hidden, names in (
        (outside(times, ASKED), ("asked", "approved_anyway", "hours")),
        (is_told_outside, ("silent",)),
    ):
        seen = ledger.without(is_hidden)
        seen.figures("budget_uses")
        for row in seen.figures("gap")["cannot_do"]:
            place = places.setdefault((row["kind"], row["reason"]), {"kind": row["kind"], "reason": row["reason"]})
            place |= {name: row[name] for name in names}
    nothing = {"asked": 0, "approved_anyway": 0, "hours": 0, "silent": 0}
    expected = {key: nothing | one for key, one in places.items()}
    expected = {key: one for key, one in expected.items() if one["asked"] or one["silent"]}
    order = sorted(expected, key=lambda key: (-expected[key]["asked"] - expected[key]["silent"], *key))
    shown = {key: {name: value for name, value in one.items() if name != "text"} for key, one in items.items()}
    lines = differences(shown, expected, "beyond") + differences([*items], order, "beyond.order")
    return lines + _head(ledger, times, found)


def even_differences(ledger: HistoryLedger, times: DateRange, found: Document | None = None) -> list[str]:
    """Return the comparisons of groups that differ from the oracle's of `report quality`, over a range alone."""
    found = found or ledger.report(consistency_report, times)
    oracle = ledger.without(outside(times, OPENED)).figures("quality")["consistency"]
    return consistency_differences(found["items"], oracle) + _head(ledger, times, found)


def _head(ledger: HistoryLedger, times: DateRange, found: Document) -> list[str]:
    begin, end = times.texts
    expected = [begin, end, times.zone.key, "happened", 1, len(ledger.events)]
    names = ("from", "to", "time_zone", "by_time", "rung", "position")
    return differences([found[name] for name in names], expected, "head")


def told_outside(events: list[Document], times: DateRange) -> Callable[[Document], bool]:
    """Return whether an event tells a matter to escalate that was told so for the first time outside a range."""
    first: dict[tuple[str, ...], Document] = {}
    for one in sorted(events, key=lambda one: one["position"]):
        if _tells(one):
            first.setdefault(_matter(one["data"]), one)
    is_outside = outside(times, SHORT)
    return lambda one: _tells(one) and is_outside(first[_matter(one["data"])])


def _tells(one: Document) -> bool:
    data = one["data"]
    return one["type"] in SHORT and data["outcome"] == "escalate" and data["basis"] == "goodwill"


def _matter(data: Document) -> tuple[str, ...]:
    names = ("interaction_id", "order_id", "customer_id")
    named = next(((name, data[name]) for name in names if data.get(name) is not None), None)
    return data["agent_id"], data["kind"], *(named or (data["amount"]["currency"], data["amount"]["amount"]))


def outside(times: DateRange, types: frozenset[str]) -> Callable[[Document], bool]:
    """Return whether an event of one of these types happened outside a range."""

    def is_hidden(one: Document) -> bool:
        at = parse_time(one["time"])
        is_within = (times.begin is None or at >= times.begin) and (times.end is None or at < times.end)
        return one["type"] in types and not is_within

    return is_hidden
