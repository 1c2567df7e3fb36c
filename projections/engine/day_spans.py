"""Day spans: the first and the last position of the rows of each day of event time, for pages far from their times.

A page in the order of positions is read in that order. Where its times are far from there, the rows of its days are
read instead, the nearest day first, until no other day can hold a row of the page. So a page of a past year is as fast
as one of yesterday. A span may be wider than its rows, never narrower.
"""

from __future__ import annotations

from heapq import nlargest, nsmallest
from typing import TYPE_CHECKING

import sqlalchemy as sa

from projections.engine.storage import driver

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from projections.engine.pages import PageRequest

_DAY_DIGITS = len("2026-11-21")
_PROBE = 100
_LAST = 1 << 62
_DAYS_AT_MOST = 20
"""Days that are read for a page of rows with equal values, before their own index is read instead."""
_NOTHING: Mapping[str, str] = {}


def spans_of(table: sa.Table) -> sa.Table:
    """Return the table of the spans of a table's days."""
    return sa.Table(
        f"{table.name}_spans",
        table.metadata,
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("first_position", sa.BigInteger, nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
    )


class DaySpans:
    """The spans of a table's days, as its projection keeps them."""

    def __init__(self, table: sa.Table) -> None:
        self._upsert = f"""INSERT INTO {table.name}_spans (day, first_position, last_position) VALUES (?, ?, ?)
            ON CONFLICT (day) DO UPDATE SET {_extreme(table, "first_position", "<")},
            {_extreme(table, "last_position", ">")}"""  # noqa: S608 - a name of ours
        self._new: dict[str, tuple[int, int]] = {}

    def note(self, time: str, position: int) -> None:
        """Note a row's event time and position."""
        day = time[:_DAY_DIGITS]
        first, last = self._new.get(day, (position, position))
        self._new[day] = min(first, position), max(last, position)

    def write(self, connection: sa.Connection) -> None:
        """Write the spans of the noted rows."""
        if self._new:
            driver(connection).executemany(self._upsert, [(day, *span) for day, span in self._new.items()])
            self._new.clear()

    def forget(self) -> None:
        """Drop the noted rows, because the batch was rolled back."""
        self._new.clear()


def _extreme(table: sa.Table, name: str, sign: str) -> str:
    """Return the assignment of the new value of a column, if it is beyond the known one."""
    known, new = f"{table.name}_spans.{name}", f"excluded.{name}"
    return f"{name} = CASE WHEN {new} {sign} {known} THEN {new} ELSE {known} END"


def is_far(
    connection: sa.Connection,
    table: sa.Table,
    page: PageRequest,
    time: str = "time",
    equal: Mapping[str, str] = _NOTHING,
) -> bool:
    """Return whether few of the first rows in a page's order have its times, so that day spans find them faster.

    Of rows with equal values only those are far that are many: few are found by an index of their values.
    """
    if page.at is not None or page.limit is None or (page.begin is None and page.end is None):
        return False
    if f"{table.name}_spans" not in table.metadata.tables:
        return False
    order = ("<", "DESC") if page.newest_first else (">", "ASC")
    matches = f"CASE WHEN 1 = 1{_conditions(equal)} THEN 1 ELSE 0 END"
    first = f"""SELECT {time}, {matches} FROM {table.name} WHERE position {order[0]} ?
        ORDER BY position {order[1]} LIMIT ?"""  # noqa: S608 - names of ours
    rows = driver(connection).execute(first, (*equal.values(), _behind(page), _PROBE)).fetchall()
    within = sum((page.begin or "") <= (one or "") < (page.end or "~") for one, _ in rows)
    matching = sum(is_equal for _, is_equal in rows)
    return bool(10 * within < len(rows) <= 10 * matching)


def positions_of(
    connection: sa.Connection,
    table: sa.Table,
    page: PageRequest,
    time: str = "time",
    without_blank: str | None = None,
    equal: Mapping[str, str] = _NOTHING,
) -> list[int] | None:
    """Return the positions of the rows of a page, by an index of ``time`` and the position.

    A row without a value of ``without_blank``, or with another value than those of ``equal``, is none. The result is
    ``None`` where the values of ``equal`` are too rare in these days: their own index finds such rows faster.
    """
    assert page.limit is not None
    begin, end, behind = page.begin or "", page.end or "~", _behind(page)
    far, near, sign, order, best = (
        ("first_position", "last_position", "<", "DESC", nlargest)
        if page.newest_first
        else ("last_position", "first_position", ">", "ASC", nsmallest)
    )
    days = f"""SELECT day, {near} FROM {table.name}_spans WHERE day || '~' > ? AND day < ? AND {far} {sign} ?
        ORDER BY {near} {order}"""  # noqa: S608 - names of ours
    rows = f"""SELECT position FROM {table.name} WHERE {time} >= ? AND {time} < ? AND position + 0 {sign} ?
        AND {without_blank or "position"} IS NOT NULL{_conditions(equal)}
        ORDER BY position + 0 {order} LIMIT ?"""  # noqa: S608 - so that SQLite reads the index of the time, and sorts
    found: list[int] = []
    for number, (day, nearest) in enumerate(driver(connection).execute(days, (begin, end, behind)).fetchall()):
        if len(found) == page.limit and (found[-1] > nearest) is page.newest_first:
            break
        if equal and number == _DAYS_AT_MOST:
            return None
        limits = max(begin, day), min(end, f"{day}~"), behind, *equal.values(), page.limit
        more = [position for (position,) in driver(connection).execute(rows, limits).fetchall()]
        found = best(page.limit, (*found, *more))
    return found


def _conditions(equal: Mapping[str, str]) -> str:
    return "".join(f" AND {name} || '' = ?" for name in equal)  # so that no index of the value itself is read


def _behind(page: PageRequest) -> int:
    """Return the position behind which a page begins in its order."""
    return page.after or (_LAST if page.newest_first else 0)


def at_positions[*Values](
    query: sa.Select[*Values], table: sa.Table, positions: Sequence[int], *, newest_first: bool
) -> sa.Select[*Values]:
    """Return a query of the rows at these positions, in the order of a page."""
    ordered = table.c.position.desc() if newest_first else table.c.position
    return query.where(table.c.position.in_(positions)).order_by(ordered)
