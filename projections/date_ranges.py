"""Ranges of days or times, as a reader writes them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.periods import days_of
from ledger.store.cloudevents import parse_time, time_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_TICK = timedelta(microseconds=1)
_FIRST_YEAR, _LAST_YEAR = 2, 9998
"""The years of limits: in any time zone, their days and the days beside them can be written."""


_FIRST = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC)


class RangeError(ValueError):
    """A part of a range that cannot be used; ``field`` is its name."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class DateRange(NamedTuple):
    """The times from ``begin`` on, and before ``end``; ``None`` is without limit. Days are those of the zone."""

    begin: datetime | None
    end: datetime | None
    zone: ZoneInfo

    @property
    def texts(self) -> tuple[str | None, str | None]:
        """The limits as stored times."""
        return tuple(None if one is None else time_text(one) for one in (self.begin, self.end))  # type: ignore[return-value]

    def before(self) -> DateRange | None:
        """Return the range of the same number of days just before, or ``None`` without both limits.

        A range that is not of whole days has one of the same duration before it. ``None``, too, where it would begin
        before the first day that can be written.
        """
        if self.begin is None or self.end is None or self.begin - _FIRST < self.end - self.begin:
            return None
        first, after = (one.astimezone(self.zone) for one in (self.begin, self.end))
        if first.time() == after.time() == time():
            days = (after.date() - first.date()).days
            begin = datetime.combine(first.date() - timedelta(days=days), time(), self.zone)
        else:
            begin = self.begin - (self.end - self.begin)
        return self._replace(begin=begin, end=self.begin)

    def overlapping(self, periods: Iterable[str]) -> list[str]:
        """Return the periods with a day in this range."""
        first = None if self.begin is None else self.begin.astimezone(self.zone).date()
        last = None if self.end is None else (self.end - _TICK).astimezone(self.zone).date()

        def overlaps(period: str) -> bool:
            begin, after = days_of(period)
            return (last is None or begin <= last) and (first is None or after > first)

        return [period for period in periods if overlaps(period)]


def zone_named(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database.

    Raises:
        RangeError: there is none of that name.

    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise RangeError("tz", f"no time zone {name[:40]!r}: write a name such as Europe/London, or UTC") from None


def read_range(begin: str | None, end: str | None, zone: ZoneInfo) -> DateRange:
    """Return the range of two texts: each a time (RFC 3339), a day or a period (2026-11-21, 2026-W47, 2026-11).

    A day or a period belongs to the range as a whole. A time as ``end`` is the first one behind the range.

    Raises:
        RangeError: a text is neither, or the range is empty; ``field`` is ``from`` or ``to``.

    """
    first, after = (_moment(*one, zone) for one in ((begin, "from"), (end, "to")))
    if first is not None and after is not None and first >= after:
        raise RangeError("to", f"{(end or '')[:40]!r} does not come after `from`")
    return DateRange(first, after, zone)


def _moment(text: str | None, field: str, zone: ZoneInfo) -> datetime | None:
    if text is None:
        return None
    hint = "write a day (2026-11-21), a period (2026-11, 2026-W47, 2026-Q4) or a time (2026-11-21T10:00:00Z)"
    found: datetime | date
    try:
        found = days_of(text)[field == "to"]
    except ValueError:
        try:
            found = parse_time(text)
        except ValueError:
            raise RangeError(field, f"{text[:40]!r} is no time: {hint}") from None
    except OverflowError:  # the last day that can be written
        found = date.max
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        message = f"{text[:40]!r} lies outside the years {_FIRST_YEAR:04d} to {_LAST_YEAR}: leave it out for no limit"
        raise RangeError(field, message)
    return found if isinstance(found, datetime) else datetime.combine(found, time(), zone).astimezone(UTC)
