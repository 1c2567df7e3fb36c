"""Comparison of `report unused-authority` with its oracle, for every period with budgets."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from projections.reports.unused_authority import unused_authority
from tests.support.documents import Document
from tests.support.report_oracle import HistoryLedger, differences

LATER = datetime(2026, 5, 15, 12, tzinfo=UTC)
"""A moment after the random histories."""


def unused_differences(ledger: HistoryLedger, found: Document | None = None) -> list[str]:
    """Return the differences of a document as of now from the oracle; without one, of each period as of ``LATER``."""
    ledger.figures("budget_uses")
    oracle = ledger.figures("unused_authority")
    if found is not None:
        return _compared(ledger, oracle, found, datetime.now(UTC))
    first = ledger.report(unused_authority, ledger.published, LATER)
    opened = {one["period"] for one in oracle["periods"]}
    lines = differences(set(first["periods"]), opened | {"2026-05"}, "periods")
    ended = [one for one in first["periods"] if one in opened and one not in {"2026-05", "2026-Q2"}]
    names = ("taken", "held", "reported")
    acts = [one["time"] for one in ledger.events if one["type"] in {f"resolution.action.{name}.v1" for name in names}]
    whole = [one for one in ended if not acts or _end_of(one) <= max(acts)]
    lines += differences(first["period"], (*whole, *ended, "2026-05")[0], "period")
    for period in first["periods"]:
        found = ledger.report(unused_authority, ledger.published, LATER, period)
        lines += differences(found["period"], period, "period") + _compared(ledger, oracle, found, LATER)
    return lines


def _compared(ledger: HistoryLedger, oracle: dict[str, list[Document]], found: Document, now: datetime) -> list[str]:
    period = found["period"]
    published = next(one["data"] for one in reversed(ledger.events) if one["type"] == "resolution.policy.published.v1")
    able = _able(published, oracle, now)
    contacts = {one["agent"]: one["contacts"] for one in oracle["contacts"]}
    opened = {one["employee"] for one in oracle["opened"] if one["period"] == period}
    uses = {(one["employee"], one["kind"], one["currency"], one["period"]): one for one in oracle["uses"]}
    last: dict[tuple[str, str, str], datetime] = {}
    for (name, kind, currency, _), use in uses.items():
        last[name, kind, currency] = max(use["last"], last.get((name, kind, currency), use["last"]))
    budgets: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for one in oracle["budgets"]:
        if one["period"] == period:
            budgets[one["employee"]].append((one["currency"], one["granted"], one["spent"]))
    policy = published["policy"]
    expected, judged = [], set()
    for name, (role, limits) in able.items():
        if name not in contacts:
            continue
        unopened = [(policy["currency"], round(float(policy["roles"][role]["budget"]) * 100), 0)]
        for currency, granted, spent in budgets[name] if name in opened else unopened:
            judged.add(name)
            if spent * 10 >= granted:
                continue
            for kind, limit in limits.items():
                use = uses.get((name, kind, currency, period), {"used": 0, "actions": 0})
                line = (use["used"], use["actions"], last.get((name, kind, currency)))
                expected.append((name, role, kind, limit, currency, *line, granted, spent, contacts[name]))
    shown = [
        (
            *(one[field] for field in ("employee_id", "role", "kind")),
            one["limit"] and one["limit"]["amount"],
            one["used"]["currency"],
            _minor(one["used"]),
            one["actions"],
            one["last_used"] and datetime.fromisoformat(one["last_used"]).replace(tzinfo=None),
            *(_minor(one["granted"]), _minor(one["spent"]), one["contacts"]),
        )
        for one in found["items"]
    ]
    lines = differences(sorted(shown, key=str), sorted(expected, key=str), f"{period}.items")
    shares = [_minor(one["spent"]) / _minor(one["granted"]) for one in found["items"]]
    lines += differences(shares, sorted(shares), f"{period}.order")
    for name in ("granted", "spent"):
        currencies = [one[name]["currency"] for one in found["items"]]
        lines += differences(currencies, [one["used"]["currency"] for one in found["items"]], f"{period}.{name}")
    return lines + differences(found["employees"], len(judged), f"{period}.employees")


def _end_of(period: str) -> str:
    """Return the end of a period in the policy's time zone."""
    year = int(period[:4])
    if "W" in period:
        behind = date.fromisocalendar(year, int(period[6:]), 1) + timedelta(days=7)
    elif len(period) == 10:
        behind = date.fromisoformat(period) + timedelta(days=1)
    else:
        month = int(period[-1]) * 3 if "Q" in period else int(period[5:])
        behind = date(year + month // 12, month % 12 + 1, 1)
    end = datetime(behind.year, behind.month, behind.day, tzinfo=ZoneInfo("Europe/London")).astimezone(UTC)
    return f"{end.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _able(published: Document, oracle: dict[str, list[Document]], now: datetime) -> dict[str, tuple[str, Document]]:
    """Return the role of each present employee, and the limits of the kinds for which they have the training."""
    policy = published["policy"]
    trained = {
        (one["employee"], one["course"])
        for one in oracle["courses"]
        if one["until"] is None or datetime.fromisoformat(one["until"]) > now
    }
    found: dict[str, tuple[str, Document]] = {}
    for one in oracle["people"]:
        name, role, teams = one["employee"], one["role"], one["teams"] or []
        if one["has_left"] or role not in policy["roles"]:
            continue
        limits = dict(policy["roles"][role]["limits"])
        for team in reversed(teams):
            limits |= policy.get("teams", {}).get(team, {}).get("limits", {}).get(role, {})
        trial = policy.get("trial", {})
        tried = trial.get("limit", {})
        drawn = set(published.get("trial_teams", ())).intersection(teams)
        if drawn and tried["role"] == role and now < datetime.fromisoformat(trial["until"]):
            limits[tried["kind"]] = tried["amount"]
        needed = policy["roles"][role].get("requires", {})
        may = {
            kind: None if limit == "unlimited" else f"{Decimal(limit):.2f}"
            for kind, limit in limits.items()
            if all((name, course) in trained for course in needed.get(kind, ()))
        }
        found[name] = (role, may)
    return found


def _minor(money: Document) -> int:
    return int(Decimal(money["amount"]) * 100)
