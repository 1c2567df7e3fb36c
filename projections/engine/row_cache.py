"""A cache of rows that events change: each row is read once, kept for the batch and written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from projections.engine.storage import NAMED, Row, driver, prepare_insert, upserting
from projections.engine.temporal_tables import HAPPENED, SINCE, Replaced

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy.engine.interfaces import DBAPICursor

    from projections.engine.day_blocks import DayBlocks

_CACHED_ROWS = 100_000
_UNREAD: Row = {}
"""The mark of a row that is not in the cache."""


class RowCache:
    """The rows of one table by key, a single column.

    ``blocks`` is told the values of the columns ``watched`` in each row that changes, before and after.
    """

    def __init__(self, table: sa.Table, blocks: DayBlocks | None = None, watched: Sequence[str] = ()) -> None:
        self._table = table
        self._blocks = blocks
        self._watched = tuple(watched)
        (self._key,) = table.primary_key.columns
        self._key_name, self._has_happened = str(self._key.name), HAPPENED in table.columns
        self._empty = {column.name: None for column in table.columns}
        columns = ", ".join(self._empty)
        self._read = f"SELECT {columns} FROM {table.name} WHERE {self._key.name} = ?"  # noqa: S608 - names of ours
        self._truths = [column.name for column in table.columns if isinstance(column.type, sa.Boolean)]
        self._cached: dict[str, Row | None] = {}
        self._changed: set[str] = set()
        self._replaced = Replaced(table)
        self._upsert = prepare_insert(upserting(table), tuple(self._empty))

    def get(self, connection: sa.Connection, key: str) -> Row | None:
        """Return the row of this key, or ``None``."""
        row = self._cached.get(key, _UNREAD)
        if row is _UNREAD:
            row = self._cached[key] = self._look(connection, key)
        return row

    def _look(self, connection: sa.Connection, key: str) -> Row | None:
        """Read a row by the driver's own statement, because this is a view's most frequent query."""
        found = driver(connection).execute(self._read, (key,)).fetchone()
        if found is None:
            return None
        row = dict(zip(self._empty, found, strict=True))
        for name in self._truths:
            row[name] = None if row[name] is None else bool(row[name])
        return row

    def put(
        self,
        connection: sa.Connection,
        key: str,
        values: Mapping[str, object],
        position: int,
        happened: str | None = None,
    ) -> Row:
        """Set some columns of a row at an event's position; other columns keep their value, or are empty in a new row.

        ``happened`` is the event time, for a table with that column.
        """
        return self._change(key, self.get(connection, key), values, position, happened)

    def _change(
        self, key: str, row: Row | None, values: Mapping[str, object], position: int, happened: str | None
    ) -> Row:
        if row is None:
            row = self._cached[key] = {**self._empty, self._key_name: key, SINCE: position}
        self._replaced.keep(row, position)
        row.update(values)
        if self._has_happened:
            row[HAPPENED] = happened
        self._changed.add(key)
        return row

    def write(self, connection: sa.Connection) -> None:
        """Write the changed rows, and their versions before the change."""
        changed = [row for key in self._changed if (row := self._cached[key])]
        if self._blocks is not None and changed and self._blocks.watches(connection):
            values = itemgetter(*self._watched)
            self._blocks.touch(self._table.name, {*map(values, changed), *self._replaced.values(self._watched)})
        self._replaced.write(connection)
        self._upsert.write(connection, [*map(self._upsert.values, changed)])
        self._changed.clear()
        if len(self._cached) > _CACHED_ROWS:
            self.forget()

    def forget(self) -> None:
        """Drop the cache."""
        self._cached.clear()
        self._changed.clear()
        self._replaced.forget()


def plain_rows[*Values](connection: sa.Connection, query: sa.Select[*Values]) -> list[tuple[*Values]]:
    """Return rows as the driver's tuples: 100,000 in a quarter of a second."""
    return list(connection.execute(query).cursor.fetchall())


def dict_rows(connection: sa.Connection, query: sa.Executable) -> list[Row]:
    """Return rows as dictionaries by column. A truth value is 0 or 1, as the driver returns it."""
    return _by_column(connection.execute(query).cursor)


class PreparedQuery(NamedTuple):
    """A query compiled to the driver's text, with its constant values.

    Compiling a query costs more than running it. So a frequent query is compiled once for each of its shapes and
    cached, with a `bindparam` for each value that varies.
    """

    text: str
    values: Mapping[str, object]

    @classmethod
    def of(cls, query: sa.SelectBase) -> PreparedQuery:
        """Return the compiled query."""
        compiled = query.compile(dialect=NAMED)
        return cls(str(compiled), compiled.params)

    def rows(self, connection: sa.Connection, values: Mapping[str, object]) -> list[Row]:
        """Return the rows as ``dict_rows`` does."""
        return _by_column(driver(connection).execute(self.text, {**self.values, **values}))


def at_most(limit: int | None) -> int:
    """Return a limit in the driver's form: -1 for no limit."""
    return -1 if limit is None else limit


def _by_column(cursor: DBAPICursor | sqlite3.Cursor) -> list[Row]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
