"""Temporal tables: rows as they were at any position.

A table has a column ``since`` (the position of the event that last changed the row) and a table ``<name>_past`` with
the replaced versions. A read as of a position takes the row if its ``since`` is not behind that position, else the last
version before. A change costs one row, and a table without changes costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from projections.engine import storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from projections.engine.storage import Row

SINCE = "since"
HAPPENED = "happened"


def past_of(table: sa.Table) -> sa.Table:
    """Return the table of replaced versions; its key is the table's key and ``since``."""
    columns = [sa.Column(column.name, column.type, primary_key=column.primary_key) for column in table.columns]
    for column in columns:
        if column.name == SINCE:
            column.primary_key = True
    return sa.Table(f"{table.name}_past", table.metadata, *columns)


def as_of(table: sa.Table, position: int | sa.BindParameter[int] | None) -> sa.FromClause:
    """Return the table as it was after the event at a position, or as it is now."""
    if position is None:
        return table
    past = table.metadata.tables[f"{table.name}_past"]
    other = past.alias()
    keys = [column.name for column in table.primary_key]
    latest = (
        sa.select(sa.func.max(other.c[SINCE]))
        .where(other.c[SINCE] <= position, *(other.c[key] == table.c[key] for key in keys))
        .scalar_subquery()
    )
    unchanged = sa.select(table).where(table.c[SINCE] <= position)
    # An outer join makes SQLite look up each row once in the past table, not the other way round.
    on = sa.and_(*(past.c[key] == table.c[key] for key in keys), past.c[SINCE] == latest)
    replaced = (
        sa.select(past)
        .select_from(table.outerjoin(past, on))
        .where(table.c[SINCE] > position, sa.func.coalesce(past.c[SINCE], 0) > 0)
    )
    return sa.union_all(unchanged, replaced).subquery(table.name)


def as_of_by_key(table: sa.Table, position: int | sa.BindParameter[int]) -> sa.FromClause:
    """Return what ``as_of`` returns, as a query that reads the rows in the order of an index of the table.

    So a page of a list reads only its own rows. A whole table is read faster by ``as_of``.
    """
    past = table.metadata.tables[f"{table.name}_past"]
    other = past.alias()
    keys = [column.name for column in table.primary_key]
    latest = (
        sa.select(sa.func.max(other.c[SINCE]))
        .where(other.c[SINCE] <= position, *(other.c[key] == table.c[key] for key in keys))
        .scalar_subquery()
    )
    unchanged = table.c[SINCE] <= position
    replaced = sa.and_(
        table.c[SINCE] > position, *(past.c[key] == table.c[key] for key in keys), past.c[SINCE] == latest
    )
    fixed = {*keys, "position"}
    columns = [
        column if column.name in fixed else sa.case((unchanged, column), else_=past.c[column.name]).label(column.name)
        for column in table.columns
    ]
    known = [sa.or_(unchanged, past.c[SINCE] > 0)]
    if "position" in table.c:
        known.append(table.c.position <= position)
    return sa.select(*columns).select_from(table.outerjoin(past, replaced)).where(*known).subquery(table.name)


def versions(connection: sa.Connection, table: sa.Table, key: Mapping[str, object]) -> list[Row]:
    """Return all versions of a row, the oldest first."""
    found: list[Row] = []
    for one in (table.metadata.tables[f"{table.name}_past"], table):
        query = sa.select(one).where(*(one.c[name] == value for name, value in key.items())).order_by(one.c[SINCE])
        found += [dict(row) for row in connection.execute(query).mappings()]
    return found


def happened(connection: sa.Connection, table: sa.Table, moment: str, counted: Sequence[str] = ()) -> list[Row]:
    """Return rows that count only changes with an event time up to a moment, even those reported later.

    The table needs a column ``happened``. Of each counted change, values that it set are taken; for the columns in
    ``counted``, the amount that it added.
    """
    keys = [column.name for column in table.primary_key]
    both = sa.union_all(sa.select(table), sa.select(table.metadata.tables[f"{table.name}_past"])).subquery()
    found: dict[tuple[object, ...], Row] = {}
    before: dict[tuple[object, ...], Row] = {}
    for row in map(dict, connection.execute(sa.select(both).order_by(both.c[SINCE])).mappings()):
        key = tuple(row[name] for name in keys)
        previous, before[key] = before.get(key, {}), row
        if row[HAPPENED] is None or row[HAPPENED] > moment:
            continue
        shown = found.setdefault(key, dict.fromkeys(row) | dict(zip(keys, key, strict=True)))
        for name, value in row.items():
            if name in counted and value is not None:
                shown[name] = (shown[name] or 0) + value - (previous.get(name) or 0)
            elif value != previous.get(name):
                shown[name] = value
    return list(found.values())


class Replaced:
    """Versions of rows that this batch has replaced, to be written with the batch."""

    def __init__(self, table: sa.Table) -> None:
        past = table.metadata.tables[f"{table.name}_past"]
        self._insert = storage.prepare_insert(past, tuple(column.name for column in past.columns))
        self._names = [column.name for column in past.columns]
        self._rows: list[tuple[object, ...]] = []

    def keep(self, row: Row, position: int) -> None:
        """Keep the row as it is before the event at a position changes it, once for each event."""
        if row[SINCE] != position:
            self._rows.append(self._insert.values(row))
            row[SINCE] = position

    def values(self, names: Sequence[str]) -> set[tuple[object, ...]]:
        """Return the values of these columns in the replaced versions."""
        places = [self._names.index(name) for name in names]
        return {tuple(row[at] for at in places) for row in self._rows}

    def write(self, connection: sa.Connection) -> None:
        """Write the replaced versions."""
        rows, self._rows = self._rows, []
        self._insert.write(connection, rows, are_new=True)

    def forget(self) -> None:
        """Drop the replaced versions, because the batch was rolled back."""
        self._rows.clear()
