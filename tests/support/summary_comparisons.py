"""Comparison of the summary with its oracle."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args
from zoneinfo import ZoneInfo

from projections.date_ranges import DateRange
from projections.reports.summary import summary
from projections.views.totals import PERIODS, By
from tests.support.documents import Document
from tests.support.oracle_intervals import interval_of_mean
from tests.support.report_oracle import HistoryLedger, differences

if TYPE_CHECKING:
    from collections.abc import Sequence

type Oracle = dict[tuple[str, str], Document]
"""The oracle's figures by property and group."""

PROPERTIES: tuple[By, ...] = get_args(By.__value__)


def summary_differences(ledger: HistoryLedger, begin: datetime | None, end: datetime | None, zone: str) -> list[str]:
    """Return the places where the summary of a range differs from the oracle's, by every property."""
    times = DateRange(begin, end, ZoneInfo(zone))
    found, oracles = [], oracles_of(ledger, times)
    for by in (None, *PROPERTIES):
        found += compared(ledger, times, by, ledger.report(summary, times, by), oracles)
    return found


def oracles_of(ledger: HistoryLedger, times: DateRange) -> tuple[Oracle, Oracle | None]:
    """Return the oracle's figures of a range, and of the range before."""
    before = times.before()
    return _oracle(ledger, times), None if before is None else _oracle(ledger, before)


def compared(
    ledger: HistoryLedger,
    times: DateRange,
    by: By | None,
    found: Document,
    oracles: tuple[Oracle, Oracle | None] | None = None,
) -> list[str]:
    """Return the places where one summary differs from the oracle's."""
    (oracle, earlier), before = oracles or oracles_of(ledger, times), times.before()
    lacks = _LACKS.get(by or "", ())
    head: Document = {
        "from": times.texts[0],
        "to": times.texts[1],
        "time_zone": times.zone.key,
        "by_time": "happened",
        "rung": 1,
        "by": by,
        "not_divided": list(lacks),
        "before": None if before is None else {"from": before.texts[0], "to": before.texts[1]},
        "position": len(ledger.events),
    }
    lines = differences(
        {name: found[name] for name in head} | {"not_divided": list(found["not_divided"])}, head, "head"
    )
    lines += differences(_shown(found["total"]), _figures(oracle, "total", ""), "total")
    then = None if earlier is None else _figures(earlier, "total", "")
    lines += differences(found["total"]["before"] and _shown(found["total"]["before"]), then, "total.before")
    labels = sorted(label for what, label in oracle if what == by)
    if by not in PERIODS:
        labels.sort(key=lambda label: (-_figures(oracle, by or "", label)["given"], label))
    lines += differences([one["group"] for one in found["groups"]], labels, f"{by}.order")
    for one in found["groups"]:
        label, place = one["group"], f"{by}.{one['group']}"
        lines += differences(_shown(one), _figures(oracle, by or "", label, lacks), place)
        then = None if earlier is None or by in PERIODS else _figures(earlier, by or "", label, lacks)
        lines += differences(one["before"] and _shown(one["before"]), then, f"{place}.before")
    return lines


def _shown(figures: Document) -> Document:
    """Return the figures of a group in the form of the oracle's; parts that it lacks are left out."""
    acts, waits = figures["actions"], figures["escalations"]
    shown = {
        "given": acts["given"],
        "states": acts["states"],
        "by_currency": [_minor(one) for one in acts["by_currency"]],
        "requested": waits["requested"],
        "outcomes": waits["outcomes"],
        "approved": waits["approved"],
        "asked": [_minor_of(one) for one in waits["asked"]],
        "approved_amount": [_minor_of(one) for one in waits["approved_amount"]],
        **waits["hours_waited"],
        **(figures["interactions"] or {}),
    }
    shown |= {name: figures[name] for name in ("consistency", "satisfaction") if figures[name] is not None}
    return shown | ({} if figures["budgets"] is None else {"budgets": [_minor(one) for one in figures["budgets"]]})


def _minor(line: Document) -> Document:
    """Return a line with each of its amounts in minor units; all are of the line's currency."""
    amounts: dict[str, list[Document]] = {name: [one] for name, one in line.items() if isinstance(one, dict)}
    amounts |= {name: one for name, one in line.items() if isinstance(one, list)}
    plain = {name: [_minor_of(one)["minor"] for one in some] for name, some in amounts.items()}
    plain = {name: some if isinstance(line[name], list) else some[0] for name, some in plain.items()}
    return line | plain | {"amounts_in": [*{one["currency"] for some in amounts.values() for one in some}]}


def _minor_of(amount: Document) -> Document:
    return {"minor": round(float(amount["amount"]) * 100), "currency": amount["currency"]}


_LACKS: dict[str, tuple[str, ...]] = {
    "agent_kind": ("budgets", "interactions", "satisfaction", "consistency"),
    "role": ("budgets", "interactions", "satisfaction", "consistency"),
    "kind": ("budgets", "interactions", "satisfaction", "consistency"),
    "reason": ("budgets",),
    "channel": ("budgets",),
}
"""The parts that a group of a property lacks, because their events do not name it."""
_NO_SHARE: Document = {"k": 0, "n": 0, "share": None, "interval": None}
_INTERACTIONS = ("resolved", "first_contact", "transferred", "reopened", "stories_repeated")
_NOTHING: dict[str, Document] = {
    "actions": {"given": 0, "states": {}},
    "given": {"by_currency": []},
    "escalations": {
        "requested": 0,
        "outcomes": {},
        "approved": _NO_SHARE,
        "n": 0,
        "mean": None,
        "mean_interval": None,
        "median": None,
        "median_interval": None,
    },
    "asked_by_currency": {"asked": [], "approved_amount": []},
    "budgets": {"budgets": []},
    "satisfaction": {"satisfaction": []},
    "interactions": {
        "opened": 0,
        "mean_transfers": None,
        "mean_transfers_interval": None,
        **dict.fromkeys(_INTERACTIONS, _NO_SHARE),
    },
    "consistency": {"consistency": _NO_SHARE},
}
"""The figures of a group without any event, by part."""
_ORACLE = ("actions", "given", "escalations", "asked_by_currency", "interactions", "satisfaction", "budgets")


def _figures(oracle: Oracle, what: str, label: str, lacks: Sequence[str] = ()) -> Document:
    """Return the oracle's figures of a group."""
    nothing = {name: value for part, some in _NOTHING.items() if part not in lacks for name, value in some.items()}
    return nothing | oracle.get((what, label), {})


def _oracle(ledger: HistoryLedger, times: DateRange) -> Oracle:
    """Return the oracle's figures by property and group."""
    begin, end = (
        "NULL" if one is None else f"'{one.astimezone(UTC).replace(tzinfo=None).isoformat(' ')}'"
        for one in (times.begin, times.end)
    )
    limits = f"{begin}::TIMESTAMP AS begin, {end}::TIMESTAMP AS \"end\", '{times.zone.key}' AS zone"
    figures = ledger.figures("summary", f"CREATE OR REPLACE TABLE limits AS SELECT {limits}")
    found: dict[tuple[str, str], Document] = {}
    for part in _ORACLE:
        for row in figures[part]:
            place = found.setdefault((row.pop("what"), row.pop("label")), {})
            if part in ("actions", "escalations", "interactions"):
                place |= row
            elif part == "asked_by_currency":
                for name in ("asked", "approved_amount"):
                    place[name] = [*place.get(name, []), {"minor": row[name], "currency": row["currency"]}]
            else:
                name = "by_currency" if part == "given" else part
                if part == "satisfaction":
                    row["interval"] = interval_of_mean(
                        row["mean"], row.pop("standard_error"), row["n"], row.pop("ends")
                    )
                line = row if part == "satisfaction" else row | {"amounts_in": [row["currency"]]}
                place[name] = [*place.get(name, []), line]
    return found
