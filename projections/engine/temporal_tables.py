"""Every row as it was at any position: what a change replaces is kept beside the table, with when it came.

A table gets a column ``since`` (the position of the event that made the row what it is) and a sister ``<name>_past``
with the rows that were replaced. Reading as of a position takes a row where ``since`` is not behind it, else the last
one before it. It costs a row a change, and nothing where rows never change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from projections.engine import storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SINCE = "since"
HAPPENED = "happened"


def past_of(table: sa.Table) -> sa.Table:
    """The sister table that keeps what was replaced; its key is the table's and ``since``."""
    columns = [sa.Column(column.name, column.type, primary_key=column.primary_key) for column in table.columns]
    for column in columns:
        if column.name == SINCE:
            column.primary_key = True
    return sa.Table(f"{table.name}_past", table.metadata, *columns)


def as_of(table: sa.Table, position: int | sa.BindParameter[int] | None) -> sa.FromClause:
    """The table as it was behind the event at a position; as it is, where there is none."""
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
    # An outer join, so that each row is looked up once in the past, and never the other way round.
    on = sa.and_(*(past.c[key] == table.c[key] for key in keys), past.c[SINCE] == latest)
    replaced = (
        sa.select(past)
        .select_from(table.outerjoin(past, on))
        .where(table.c[SINCE] > position, sa.func.coalesce(past.c[SINCE], 0) > 0)
    )
    return sa.union_all(unchanged, replaced).subquery(table.name)


def versions(connection: sa.Connection, table: sa.Table, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row as it was behind each event that changed it, oldest first."""
    found: list[dict[str, Any]] = []
    for one in (table.metadata.tables[f"{table.name}_past"], table):
        query = sa.select(one).where(*(one.c[name] == value for name, value in key.items())).order_by(one.c[SINCE])
        found += [dict(row) for row in connection.execute(query).mappings()]
    return found


def happened(
    connection: sa.Connection, table: sa.Table, moment: str, counted: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Rows when only what had happened by a moment is counted, also what was told later.

    The table has a column ``happened`` as well. Of each change what it set is taken where it had happened by then;
    of the columns in ``counted`` what it added.
    """
    keys = [column.name for column in table.primary_key]
    both = sa.union_all(sa.select(table), sa.select(table.metadata.tables[f"{table.name}_past"])).subquery()
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    before: dict[tuple[Any, ...], dict[str, Any]] = {}
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
    """Rows that events of this batch have replaced, to be written with them."""

    def __init__(self, table: sa.Table) -> None:
        self._insert = table.metadata.tables[f"{table.name}_past"].insert().prefix_with("OR REPLACE")
        self._rows: list[dict[str, Any]] = []

    def keep(self, row: dict[str, Any], position: int) -> None:
        """The row as it is before the event at a position changes it; twice for one event is once."""
        if row[SINCE] != position:
            self._rows.append(dict(row))
            row[SINCE] = position

    def write(self, connection: sa.Connection) -> None:
        """Write what was replaced."""
        rows, self._rows = self._rows, []
        storage.write(connection, self._insert, rows)

    def forget(self) -> None:
        """The batch was rolled back."""
        self._rows.clear()
