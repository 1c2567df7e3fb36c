"""Periods: 2026-11-21, 2026-W47, 2026-11, 2026-Q4, each with its bounds in a time zone."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

PeriodKind = Literal["day", "week", "month", "quarter"]

_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)
_WEEK = re.compile(r"(\d{4})-W(\d{2})", re.ASCII)
_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
_QUARTER = re.compile(r"(\d{4})-Q([1-4])", re.ASCII)
_MONTHS_A_YEAR = 12


def period_of(moment: datetime, kind: PeriodKind, zone: ZoneInfo) -> str:
    """Return the name of the period that contains this moment (weeks as in ISO 8601)."""
    day = moment.astimezone(zone).date()
    match kind:
        case "day":
            return day.isoformat()
        case "week":
            year, week, _ = day.isocalendar()
            return f"{year:04d}-W{week:02d}"
        case "month":
            return f"{day.year:04d}-{day.month:02d}"
        case "quarter":
            return f"{day.year:04d}-Q{(day.month - 1) // 3 + 1}"


@lru_cache(maxsize=1000)
def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of a stored policy, or UTC where the IANA database at hand lacks it (any more)."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


class OpenedPeriod(NamedTuple):
    """A period for which a budget was opened."""

    name: str
    time_zone: str
    """The time zone of the policy that opened it."""
    granted: bool
    """True if its opening granted an amount above zero."""


class Calendar:
    """The periods of one kind in a zone. It caches the last one, because moments come in order."""

    def __init__(self, kind: PeriodKind, zone: ZoneInfo) -> None:
        self._kind, self._zone = kind, zone
        self._period, self._first, self._after = "", 0.0, 0.0

    def at(self, seconds: float) -> str:
        """Return ``period_of`` for a moment in seconds since 1970."""
        if not self._first <= seconds < self._after:
            self._period = period_of(datetime.fromtimestamp(seconds, UTC), self._kind, self._zone)
            first, after = bounds_of(self._period, self._zone)
            self._first, self._after = first.timestamp(), after.timestamp()
        return self._period


@lru_cache(maxsize=1000)
def days_of(period: str) -> tuple[date, date]:
    """Return the first day of the period, and the first day after it.

    Raises:
        ValueError: the text is not the name of a period.

    """
    if found := _DAY.fullmatch(period):
        first = date(int(found[1]), int(found[2]), int(found[3]))
        return first, first + timedelta(days=1)
    if found := _WEEK.fullmatch(period):
        first = date.fromisocalendar(int(found[1]), int(found[2]), 1)
        return first, first + timedelta(days=7)
    if found := _QUARTER.fullmatch(period):
        return _months(int(found[1]), int(found[2]) * 3 - 2, 3)
    if found := _MONTH.fullmatch(period):
        return _months(int(found[1]), int(found[2]), 1)
    message = f"not a period: {period!r}; a period reads 2026-11-21, 2026-W47, 2026-11 or 2026-Q4"
    raise ValueError(message)


def bounds_of(period: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the first moment of the period, and the first moment after it, in the zone."""
    first, after = days_of(period)
    return datetime.combine(first, time(), zone), datetime.combine(after, time(), zone)


def _months(year: int, month: int, count: int) -> tuple[date, date]:
    last = month + count - 1
    after = date(year + last // _MONTHS_A_YEAR, last % _MONTHS_A_YEAR + 1, 1)
    return date(year, month, 1), after


def kind_of(period: str) -> PeriodKind:
    """Return the kind of period that has this name, e.g. ``week`` for ``2026-W47``."""
    if _DAY.fullmatch(period):
        return "day"
    if _WEEK.fullmatch(period):
        return "week"
    return "quarter" if _QUARTER.fullmatch(period) else "month"
