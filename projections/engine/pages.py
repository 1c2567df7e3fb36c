"""Pages of lists: rows in the order of their positions, each page behind the last row of the page before.

A row's position is that of the event that created it, and never changes. So a row that arrives between two pages comes
before the first page (newest first) or behind the last one (oldest first), and no row is repeated or lost.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import sqlalchemy as sa

from domain.serialization import encode
from projections.engine.day_spans import at_positions, is_far, positions_of
from projections.engine.row_cache import LIMIT, PreparedQuery, at_most, dict_rows
from projections.engine.sql_functions import larger, smaller
from projections.engine.temporal_tables import as_of_by_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from projections.engine.storage import Row


class PageRequest(NamedTuple):
    """A page of a list.

    ``after`` is the position of the last row of the page before, 0 for the first page. ``at`` is the position of a past
    state. ``begin`` and ``end`` limit the event time, as texts: from the first on, and before the second. ``first`` and
    ``behind`` limit the position in the same way: rows of events that were recorded in a time.
    """

    limit: int | None = None
    after: int = 0
    newest_first: bool = False
    at: int | None = None
    begin: str | None = None
    end: str | None = None
    first: int | None = None
    behind: int | None = None

    def given(self) -> dict[str, object]:
        """Return the values that limit the rows, by name."""
        values = {"after": self.after or None, "at": self.at, "begin": self.begin, "end": self.end}
        values |= {"first": self.first, "behind": self.behind}
        return {name: value for name, value in values.items() if value is not None}


WHOLE = PageRequest()


def source_of(table: sa.Table, page: PageRequest) -> sa.FromClause:
    """Return the rows that a page is taken from: those of the present, or of a past position."""
    return table if page.at is None else as_of_by_key(table, page.at)


def page_rows(
    connection: sa.Connection,
    table: sa.Table,
    page: PageRequest,
    where: Sequence[sa.ColumnElement[bool]] = (),
    equal: Mapping[str, str | None] | None = None,
    *,
    source: sa.FromClause | None = None,
    time: str = "time",
    without_blank: str | None = None,
) -> list[Row]:
    """Return the rows of a page.

    ``where`` are conditions on ``source``, which is ``source_of(table, page)`` by default. A ``None`` in ``equal``
    matches any value. ``time`` names the column of the event time; a row without a value of ``without_blank`` is none.
    """
    values = {name: value for name, value in (equal or {}).items() if value is not None}
    given = page.given()
    if not where and (source is None or source is table):
        is_by_days = is_far(connection, table, page, time, values)
        positions = positions_of(connection, table, page, time, without_blank, values) if is_by_days else None
        if positions is not None:
            far = at_positions(sa.select(table), table, positions, newest_first=page.newest_first)
            return dict_rows(connection, far)
        query = _prepared(table, frozenset(values), frozenset(given), page.newest_first, time, without_blank)
        return query.rows(connection, {**values, **given, "limit": at_most(page.limit)})
    found = source_of(table, page) if source is None else source
    conditions = _conditions(found, where, values, without_blank)
    query_ = paged(sa.select(found).where(*conditions), found, given, newest_first=page.newest_first, time=time)
    return dict_rows(connection, query_.limit(page.limit))


def count_rows(
    connection: sa.Connection,
    table: sa.Table,
    page: PageRequest,
    where: Sequence[sa.ColumnElement[bool]] = (),
    equal: Mapping[str, str | None] | None = None,
    *,
    source: sa.FromClause | None = None,
    time: str = "time",
    without_blank: str | None = None,
) -> int:
    """Return the number of rows of the list that a page is taken from; the parameters are those of ``page_rows``."""
    found = source_of(table, page) if source is None else source
    values = {name: value for name, value in (equal or {}).items() if value is not None}
    given = page._replace(after=0).given()
    conditions = _conditions(found, where, values, without_blank)
    conditions += [*_placed(found.c.position, given), *_within(found.c[time], given)]
    return connection.scalar(sa.select(sa.func.count()).select_from(found).where(*conditions)) or 0


def _conditions(
    found: sa.FromClause,
    where: Sequence[sa.ColumnElement[bool]],
    values: Mapping[str, str],
    without_blank: str | None,
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on the rows of a list, without those of its range and page."""
    conditions = [*where, *(found.c[name] == value for name, value in values.items())]
    if without_blank is not None:
        conditions.append(found.c[without_blank].is_not(None))
    return conditions


@cache
def _prepared(
    table: sa.Table,
    names: frozenset[str],
    given: frozenset[str],
    newest_first: bool,
    time: str,
    without_blank: str | None,
) -> PreparedQuery:
    found = as_of_by_key(table, sa.bindparam("at")) if "at" in given else table
    query = sa.select(found).where(*(found.c[name] == sa.bindparam(name) for name in sorted(names)))
    if without_blank is not None:
        query = query.where(found.c[without_blank].is_not(None))
    bounds: dict[str, object] = {name: sa.bindparam(name) for name in given}
    return PreparedQuery(paged(query, found, bounds, newest_first=newest_first, time=time).limit(LIMIT))


def _within(time: sa.ColumnElement[object], given: Mapping[str, object]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a time lies within the limits of a page."""
    found = [time >= given["begin"]] if "begin" in given else []
    return [*found, time < given["end"]] if "end" in given else found


def _placed(
    position: sa.ColumnElement[int], given: Mapping[str, Any], *, newest_first: bool = False
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a position lies behind the page before, and within the limits of the list.

    There is one lower and one upper limit at most: SQLite seeks by one of each, and scans for the others.
    """
    above = [given["first"] - 1] if "first" in given else []
    below = [given["behind"]] if "behind" in given else []
    if "after" in given:
        (below if newest_first else above).append(given["after"])
    elif not above:
        above.append(0)
    found = [position > (larger(*above) if len(above) > 1 else above[0])] if above else []
    return [*found, position < (smaller(*below) if len(below) > 1 else below[0])] if below else found


def paged[*Values](
    query: sa.Select[*Values],
    found: sa.FromClause,
    given: Mapping[str, object],
    *,
    newest_first: bool,
    time: str = "time",
) -> sa.Select[*Values]:
    """Return a query of the rows behind the page before, within the times, in their order.

    ``given`` has the values of ``PageRequest.given``, or parameters for them.
    """
    position = found.c.position
    query = query.where(*_placed(position, given, newest_first=newest_first))
    happened = found.c[time] + ""  # so that SQLite does not sort all rows of the times, but reads in the page's order
    return query.where(*_within(happened, given)).order_by(position.desc() if newest_first else position)


def by_key[*Values](
    query: sa.Select[*Values],
    columns: Iterable[sa.ColumnElement[object]],
    after: Sequence[object] | None,
    *,
    descending: bool,
) -> sa.Select[*Values]:
    """Return a query of the rows behind a key, in the order of these columns."""
    key = list(columns)
    if after is not None:
        row, last = sa.tuple_(*key), sa.tuple_(*after)
        query = query.where(row < last if descending else row > last)
    return query.order_by(*(column.desc() if descending else column for column in key))


def cursor_of(key: Sequence[object]) -> str:
    """Return a row's key as a text for the next page."""
    return urlsafe_b64encode(encode(key)).decode().rstrip("=")


def key_of(table: sa.Table, cursor: str, columns: Sequence[sa.Column[object]] = ()) -> list[object]:
    """Return the key that ``cursor_of`` made a text of: the values of ``columns``, else of the table's primary key.

    Raises:
        ValueError: the text is not a cursor of this table.

    """
    columns = columns or list(table.primary_key)
    try:
        values = msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=list[object])
        return [msgspec.convert(value, column.type.python_type) for column, value in zip(columns, values, strict=True)]
    except (msgspec.MsgspecError, ValueError):
        raise ValueError("not the `next` of a page of this list") from None
