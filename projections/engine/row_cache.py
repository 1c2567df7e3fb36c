"""A cache of rows that events change: each row is read once, kept for the batch and written once."""

from __future__ import annotations

from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from domain.serialization import encode
from projections.engine.sql_functions import listed_values
from projections.engine.storage import Row, Rows, driver, names_of, prepare_insert
from projections.engine.temporal_tables import HAPPENED, SINCE, Replaced

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.engine.interfaces import DBAPICursor

    from projections.engine.day_blocks import DayBlocks

_CACHED_ROWS = 10_000
"""About 10 MB of each cache, of which a process that runs all views has some twenty."""
_TOGETHER = 3
"""Fewer rows are read one by one."""
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
        columns = names_of(tuple(self._empty))
        self._read = f"SELECT {columns} FROM {table.name} WHERE {self._key.name} = ?"  # noqa: S608 - names of ours
        self._read_many = PreparedQuery(sa.select(table).where(self._key.in_(listed_values("keys"))))
        self._truths = [column.name for column in table.columns if isinstance(column.type, sa.Boolean)]
        self._cached: dict[str, Row | None] = {}
        self._changed: set[str] = set()
        self._created: set[str] = set()
        """Keys of rows that the table does not have yet."""
        self._replaced = Replaced(table)
        self._upsert = prepare_insert(table, tuple(self._empty))

    def get(self, connection: sa.Connection, key: str) -> Row | None:
        """Return the row of this key, or ``None``."""
        row = self._cached.get(key, _UNREAD)
        if row is _UNREAD:
            row = self._cached[key] = self._look(connection, key)
        return row

    def _look(self, connection: sa.Connection, key: str) -> Row | None:
        """Read a row by the driver's own statement, because this is a view's most frequent query."""
        found = driver(connection).execute(self._read, (key,)).fetchone()
        return None if found is None else self._row_of(found)

    def read_ahead(self, connection: sa.Connection, keys: Iterable[str]) -> None:
        """Read the rows of some keys together, so that ``get`` finds them in the cache.

        A key with U+0000, which JSON functions of databases cut or refuse, is left to ``get``.
        """
        unread = [key for key in set(keys) if key not in self._cached and "\0" not in key]
        if len(unread) < _TOGETHER:
            return
        found = self._read_many.execute(connection, {"keys": encode(unread).decode()}).fetchall()
        self._cached.update(dict.fromkeys(unread))
        self._cached.update((row[self._key_name], row) for row in map(self._row_of, found))

    def _row_of(self, found: tuple[Any, ...]) -> Row:
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
            self._created.add(key)
        self._replaced.keep(row, position)
        row.update(values)
        if self._has_happened:
            row[HAPPENED] = happened
        self._changed.add(key)
        return row

    def write(self, connection: sa.Connection) -> None:
        """Write the changed rows, and their versions before the change."""
        changed = [row for key in self._changed if (row := self._cached[key])]
        created = [row for row in changed if row[self._key_name] in self._created]
        if self._blocks is not None and changed and self._blocks.watches(connection):
            values = itemgetter(*self._watched)
            self._blocks.touch(self._table.name, {*map(values, changed), *self._replaced.values(self._watched)})
        self._replaced.write(connection)
        if len(created) < len(changed):
            others = [row for row in changed if row[self._key_name] not in self._created]
            self._upsert.write(connection, [*map(self._upsert.values, others)])
        self._upsert.write(connection, [*map(self._upsert.values, created)], are_new=True)
        self._changed.clear()
        self._created.clear()
        if len(self._cached) > _CACHED_ROWS:
            self.forget()

    def forget(self) -> None:
        """Drop the cache."""
        self._cached.clear()
        self._changed.clear()
        self._created.clear()
        self._replaced.forget()


def plain_rows[*Values](connection: sa.Connection, query: sa.Select[*Values]) -> list[tuple[*Values]]:
    """Return rows as the driver's tuples: 100,000 in a quarter of a second."""
    return list(connection.execute(query).cursor.fetchall())


def dict_rows(connection: sa.Connection, query: sa.Executable) -> list[Row]:
    """Return rows as dictionaries by column. A truth value is 0 or 1, as the driver returns it."""
    return _by_column(connection.execute(query).cursor)


class PreparedQuery:
    """A query compiled to the driver's text, with its constant values.

    Compiling a query costs more than running it. So a frequent query is compiled once for each of its shapes and
    cached, with a `bindparam` for each value that varies.
    """

    def __init__(self, query: sa.SelectBase) -> None:
        self._query = query
        self._compiled: dict[str, tuple[str, Mapping[str, object]]] = {}
        """Text and constant values by the name of the database."""

    def execute(self, connection: sa.Connection, values: Mapping[str, object]) -> Rows:
        """Run the query by the driver."""
        dialect = connection.dialect
        if (known := self._compiled.get(dialect.name)) is None:
            named: Any = type(dialect)
            compiled = self._query.compile(dialect=_named(named))
            known = self._compiled[dialect.name] = str(compiled), compiled.params
        text, constants = known
        return driver(connection).execute(text, {**constants, **values})

    def rows(self, connection: sa.Connection, values: Mapping[str, object]) -> list[Row]:
        """Return the rows as ``dict_rows`` does."""
        return _by_column(self.execute(connection, values))


@cache
def _named(dialect: Any) -> Any:
    """Return a dialect for statements with `:name` in the place of values."""
    return dialect(paramstyle="named")


LIMIT = sa.bindparam("limit", type_=sa.BigInteger)
"""The parameter of the number of rows; its value is that of ``at_most``."""
_EVERY = 1 << 62


def at_most(limit: int | None) -> int:
    """Return a limit as a number that every database accepts; one that no table reaches for no limit."""
    return _EVERY if limit is None else limit


def _by_column(cursor: DBAPICursor | Rows) -> list[Row]:
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
