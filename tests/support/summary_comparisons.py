"""Comparison of the summary with its oracle."""

from __future__ import annotations

from datetime import datetime
from typing import get_args
from zoneinfo import ZoneInfo

from projections.date_ranges import DateRange
from projections.reports.summary import summary
from projections.views.totals import By
from tests.support.documents import Document
from tests.support.report_comparisons import interval_of_mean
from tests.support.report_oracle import HistoryLedger, differences

PROPERTIES: tuple[By, ...] = get_args(By.__value__)
WITHOUT_INTERACTIONS = ("agent_kind", "role", "kind")


def summary_differences(ledger: HistoryLedger, begin: datetime, end: datetime, zone: str) -> list[str]:
    """Return the places where the summary of a range differs from the oracle's, by every property."""
    times = DateRange(begin, end, ZoneInfo(zone))
    total, oracle = ledger.report(summary, times)["total"], _oracle(ledger, times)
    found = [f"total: {line}" for line in differences(_shown(total), oracle.get(("total", ""), _NONE))]
    before = times.before()
    assert before is not None
    earlier = _oracle(ledger, before).get(("total", ""), _NONE)
    found += [f"before: {line}" for line in differences(_shown(total["before"]), earlier)]
    for by in PROPERTIES:
        groups = {one["group"]: _shown(one) for one in ledger.report(summary, times, by)["groups"]}
        expected = {label: figures for (what, label), figures in oracle.items() if what == by}
        known = {label: figures for label, figures in groups.items() if figures != _empty(by)}
        found += [f"{by}: {line}" for line in differences(known, expected)]
    return found


def _shown(figures: Document) -> Document:
    """Return the figures of a group in the form of the oracle's."""
    acts, waits = figures["actions"], figures["escalations"]
    given = {one["currency"]: one for one in acts["by_currency"]}.get("GBP", {})
    asked = {one["currency"]: one for one in waits["asked"]}

    def minor(money: Document | None) -> int | None:
        return None if money is None else round(float(money["amount"]) * 100)

    zero = {"amount": "0"}
    return {
        "given": acts["given"],
        "amount": minor(given.get("amount", zero)),
        "goodwill": minor(given.get("goodwill", zero)),
        "median_goodwill": minor(given.get("median_goodwill")),
        "held": acts["states"].get("held", 0),
        "voided": acts["states"].get("voided", 0),
        "requested": waits["requested"],
        "still_open": waits["outcomes"].get("open", 0),
        "approved": waits["approved"],
        "asked_gbp": minor(asked.get("GBP", zero)),
        "asked_eur": minor(asked.get("EUR", zero)),
        **waits["hours_waited"],
        **(figures["interactions"] or {}),
        **({} if figures["consistency"] is None else {"consistency": figures["consistency"]}),
        "satisfaction": figures["satisfaction"] or [],
    }


_NO_SHARE: Document = {"k": 0, "n": 0, "share": None, "interval": None}
_NO_ACTIONS: Document = {"given": 0, "amount": 0, "goodwill": 0, "median_goodwill": None, "held": 0, "voided": 0}
_NO_ESCALATIONS: Document = {
    "requested": 0,
    "still_open": 0,
    "approved": _NO_SHARE,
    "asked_gbp": 0,
    "asked_eur": 0,
    "n": 0,
    "mean": None,
    "median": None,
}
_NO_INTERACTIONS: Document = {
    "opened": 0,
    "mean_transfers": None,
    **dict.fromkeys(
        ("resolved", "first_contact", "transferred", "reopened", "stories_repeated", "consistency"), _NO_SHARE
    ),
}
_NONE: Document = {**_NO_ACTIONS, **_NO_ESCALATIONS, **_NO_INTERACTIONS, "satisfaction": []}


def _empty(by: By) -> Document:
    """Return the figures of a group without any event (it has budgets only)."""
    return _NONE if by not in WITHOUT_INTERACTIONS else {k: v for k, v in _NONE.items() if k not in _NO_INTERACTIONS}


def _oracle(ledger: HistoryLedger, times: DateRange) -> dict[tuple[str, str], Document]:
    """Return the oracle's figures by property and group."""
    limits = [None if one is None else one.replace(tzinfo=None) for one in (times.begin, times.end)]
    text = 'CREATE OR REPLACE TABLE limits AS SELECT ?::TIMESTAMP AS begin, ?::TIMESTAMP AS "end", ? AS zone'
    ledger.database.execute(text, [*limits, times.zone.key])
    figures = ledger.figures("summary")
    found: dict[tuple[str, str], Document] = {}
    for name in ("actions", "escalations", "interactions", "satisfaction"):
        for row in figures[name]:
            what, label = row.pop("what"), row.pop("label")
            place = found.setdefault((what, label), dict(_empty("kind" if what in WITHOUT_INTERACTIONS else "team")))
            if name == "satisfaction":
                row["interval"] = interval_of_mean(row["mean"], row.pop("standard_error"), row["n"])
                place["satisfaction"] = [*place["satisfaction"], row]
            else:
                place.update(row)
    return found
