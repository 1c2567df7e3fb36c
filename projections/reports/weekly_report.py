"""The weekly report: the summary of one week by day and by reason, and the matters that wait for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, TypedDict

import sqlalchemy as sa

from domain.analytics.empowerment_gap import Share, share
from domain.periods import days_of, kind_of, period_of
from projections.date_ranges import RangeError, read_range
from projections.reports.summary import Figures, GroupFigures, Summary, TotalFigures, summary
from projections.views.cases import read_cases
from projections.views.casework import read_escalations
from projections.views.people import voices

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from projections.engine.storage import Row
    from projections.reading import Reader

_WEEK = timedelta(days=7)
_OLDEST = 10
_SHOWN = ("escalation_id", "requested", "kind", "asked", "asked_of", "reported_by", "due")


class Waiting(TypedDict):
    """The matters without an answer at the report's position, by number; of escalations also the oldest ten."""

    escalations: int
    oldest: list[Row]
    obstacles: int
    ideas: int
    cases: int


WeeklyReport = TypedDict(
    "WeeklyReport",
    {
        "week": str,
        "is_over": bool,
        "from": str | None,
        "to": str | None,
        "time_zone": str,
        "before": dict[str, str | None] | None,
        "total": TotalFigures,
        "on_the_spot": Share,
        "on_the_spot_before": Share,
        "days": list[GroupFigures],
        "reasons": list[GroupFigures],
        "waiting": Waiting,
        "caveats": Sequence[str],
        "rung": int,
        "position": int,
    },
)
"""The document of `report weekly`; `from` is a word of the language.

The figures are those of `report summary`: ``days`` its groups by day, and ``reasons`` by reason. ``on_the_spot`` is the
share of actions that were given without approval, of these and of all escalations.
"""


def last_week(now: datetime, zone: ZoneInfo) -> str:
    """Return the last whole week before a moment, e.g. ``2026-W07``; a week begins on Monday in the zone."""
    day = now.astimezone(zone).date() - _WEEK
    return period_of(datetime.combine(day, time(12), zone), "week", zone)


async def weekly_report(read: Reader, week: str, zone: ZoneInfo, now: datetime) -> WeeklyReport:
    """Return the report of a week such as ``2026-W07``; ``now`` tells whether it is over.

    Raises:
        RangeError: the text names no week.

    """
    if not _is_week(week):
        raise RangeError("week", f"{week[:40]!r} is no week: write one such as 2026-W07")
    times = read_range(week, week, zone)
    assert times.end is not None
    days: Summary = await summary(read, times, "day")
    reasons: Summary = await summary(read, times, "reason")
    waiting, position = await _waiting(read)
    total = days["total"]
    assert total["before"] is not None
    return {
        "week": week,
        "is_over": times.end <= now,
        "from": days["from"],
        "to": days["to"],
        "time_zone": days["time_zone"],
        "before": days["before"],
        "total": total,
        "on_the_spot": on_the_spot(total),
        "on_the_spot_before": on_the_spot(total["before"]),
        "days": days["groups"],
        "reasons": reasons["groups"],
        "waiting": waiting,
        "caveats": days["caveats"],
        "rung": days["rung"],
        "position": min(days["position"], reasons["position"], position),
    }


def _is_week(text: str) -> bool:
    try:
        days_of(text)
    except ValueError:
        return False
    return kind_of(text) == "week"


def on_the_spot(figures: Figures) -> Share:
    """Return the share of actions that were given without approval, of these and of all escalations."""
    own = max(0, figures["actions"]["given"] - figures["escalations"]["outcomes"].get("approved", 0))
    return share(own, own + figures["escalations"]["requested"])


async def _waiting(read: Reader) -> tuple[Waiting, int]:
    """Return the matters that wait, and the lowest position of their views."""
    escalations = await read("casework", lambda c: read_escalations(c, status="waiting"))
    people = await read("people", _unanswered)
    cases = await read("flags", lambda c: len(read_cases(c)))
    oldest = sorted(escalations.result, key=lambda one: str(one["requested"]))[:_OLDEST]
    found: Waiting = {
        "escalations": len(escalations.result),
        "oldest": [{name: one[name] for name in _SHOWN} for one in oldest],
        "obstacles": people.result.get("obstacle", 0),
        "ideas": people.result.get("idea", 0),
        "cases": cases.result,
    }
    return found, min(one.progress.anchor.position for one in (escalations, people, cases))


def _unanswered(connection: sa.Connection) -> dict[str, int]:
    """Return the number of obstacles and of ideas without an answer."""
    query = sa.select(voices.c.what, sa.func.count()).where(
        voices.c.employee_id.is_not(None), voices.c.answered.is_(None)
    )
    return {str(what): int(number) for what, number in connection.execute(query.group_by(voices.c.what))}
