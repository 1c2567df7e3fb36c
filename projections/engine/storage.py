"""The storage of views: what the engine and the views ask of a database, whichever keeps them.

A store (``ViewStore``) keeps each generation of a view apart, and knows the live one. The tables of a generation are
read and written by SQLAlchemy, and on hot paths by the driver's own connection (``Driver``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from ledger.errors import UnavailableError
from ledger.files import try_lock
from ledger.store.subscription import ReadCursor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from projections.engine.projection import Projection

Row = dict[str, Any]
"""A row of a view by column. Its table declares the types: text, integer, float, truth value or bytes, or NULL."""


progress_metadata = sa.MetaData()
progress_table = sa.Table(
    "progress",
    progress_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("recorded", sa.Text, nullable=False),
    sa.Column("stopped_position", sa.BigInteger),
    sa.Column("stopped_type", sa.Text),
    sa.Column("stopped_reason", sa.Text),
)

READ_PROGRESS = "SELECT position, digest, recorded, stopped_position, stopped_type, stopped_reason FROM progress"
_WRITE_PROGRESS = """
INSERT INTO progress (id, position, digest, recorded, stopped_position, stopped_type, stopped_reason)
VALUES (1, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET position = excluded.position, digest = excluded.digest, recorded = excluded.recorded,
stopped_position = excluded.stopped_position, stopped_type = excluded.stopped_type,
stopped_reason = excluded.stopped_reason WHERE progress.position = ?
"""
"""Kept as texts, because each read of a view starts with the first and each commit ends with the second."""

FAILURES = (OperationalError, sqlite3.OperationalError)
"""Temporary failures of the database, as the library and the driver raise them: a full disk, an interrupted read."""


class Stop(NamedTuple):
    """The position and type of the event that stopped a projection, and the reason."""

    position: int
    type: str
    reason: str


class Progress(NamedTuple):
    """The position up to which a view has read, that event's recorded time, and its stop, if it is stopped."""

    anchor: ReadCursor
    recorded: str = ""
    stopped: Stop | None = None


class FencedError(UnavailableError):
    """Another process has written the view since this one read its position."""


class Rows(Protocol):
    """The result of a statement of the driver."""

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """The columns; the first of each is its name."""

    @property
    def rowcount(self) -> int:
        """The number of rows that a statement has written."""

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""

    def fetchmany(self, size: int, /) -> list[Any]:
        """Return up to so many rows."""

    def fetchall(self) -> list[Any]:
        """Return all other rows."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the other rows."""


class Driver(Protocol):
    """The driver's own connection. Its statements have ``?`` or ``:name`` in the place of values."""

    def execute(self, text: str, values: Sequence[object] | Mapping[str, object] = ..., /) -> Rows:
        """Run a statement."""

    def executemany(self, text: str, values: Sequence[Sequence[object]], /) -> object:
        """Run a statement that returns nothing for each of these values."""

    def insert(self, into: PreparedInsert, rows: Sequence[tuple[object, ...]], /, *, are_new: bool = False) -> None:
        """Insert rows, each as its values; ``are_new``: the table has no row with one of their keys, nor they twice."""

    def limited(self, seconds: float, /) -> AbstractContextManager[None]:
        """Return a context in which a statement fails (``FAILURES``) once it takes longer; it has one transaction."""


class ViewStore(Protocol):
    """The place of a ledger's views, each generation of a view in a database or a schema of its own."""

    @property
    def answers_at_once(self) -> bool:
        """True where a short query costs less than handing it to a thread."""

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The hosts and ports of the database servers; none for files and for sockets of this machine."""

    @property
    def claim_seconds(self) -> float:
        """The time between two attempts to claim a view that another process runs."""

    def claim(self, name: str) -> AbstractContextManager[bool]:
        """Return whether this process may run a view; false where another process runs it."""

    def live_generation(self, model: Projection) -> int | None:
        """Return the live generation of this version of the projection, or ``None``."""

    def is_new(self, model: Projection) -> bool:
        """Return whether no version of the projection has ever had a live generation."""

    def progress_of(self, model: Projection) -> Progress | None:
        """Return the progress of the live generation, or ``None`` if none is live; nothing is created."""

    def next_generation(self, model: Projection) -> int:
        """Return a generation number that this projection has not used."""

    def open_generation(self, model: Projection, generation: int, *, read_only: bool = False) -> sa.Engine:
        """Return the database of one generation; create it where it does not exist."""

    def drop_unfinished(self, model: Projection) -> None:
        """Delete the generations that no switch has made live: builds that were interrupted."""

    def switch_to(self, model: Projection, generation: int) -> None:
        """Make this generation live, and delete the others."""

    def place_of(self, model: Projection, generation: int) -> str:
        """Return the name of a generation's file or schema, for people."""

    def close(self) -> None:
        """Close the store's own connections; a caller closes the engines that it opened."""


INTERNAL = ("_facts", "_days", "_spans")
"""The ends of names of tables that only the view itself reads."""


@contextmanager
def claim(folder: Path, name: str) -> Iterator[bool]:
    """Yield whether this process may do a task, by a lock file; false where another process does it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("a") as file:
        yield try_lock(file)


def live_or_first(store: ViewStore, model: Projection) -> int | None:
    """Return the live generation, or a new first one if no version has any; otherwise ``None``."""
    live = store.live_generation(model)
    if live is None and store.is_new(model):
        live = store.next_generation(model)
        store.open_generation(model, live).dispose()
        store.switch_to(model, live)
    return live


@contextmanager
def reading(store: ViewStore, model: Projection, generation: int) -> Iterator[sa.Connection]:
    """Yield a connection to one generation of a view, in one transaction."""
    engine = store.open_generation(model, generation, read_only=True)
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    finally:
        engine.dispose()


def read_progress(connection: sa.Connection) -> Progress:
    """Return the progress of the view in this database."""
    return progress_in(driver(connection).execute(READ_PROGRESS).fetchone())


def progress_in(row: tuple[Any, ...] | None) -> Progress:
    """Return the progress of a row of ``READ_PROGRESS``; that of a view that has read nothing, where there is none."""
    if row is None:
        return Progress(ReadCursor())
    position, digest, recorded, *stop = row
    return Progress(ReadCursor(position, digest), recorded, Stop(*stop) if stop[0] is not None else None)


def write_progress(connection: sa.Connection, progress: Progress, before: int) -> None:
    """Store the view's position within the transaction that changes the view.

    Raises:
        FencedError: the position is not ``before`` any more.

    """
    stop = progress.stopped or (None, None, None)
    values = (*progress.anchor, progress.recorded, *stop, before)
    if driver(connection).execute(_WRITE_PROGRESS, values).rowcount != 1:
        raise FencedError(f"another process has written this view since it was at position {before}")


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, object]],
    *,
    replaces: bool = True,
    are_new: bool = False,
) -> None:
    """Insert rows that all have the same columns, or replace rows with the same primary key, or leave these.

    A busy view writes constantly, and SQLAlchemy's parameters would cost more than the write. ``are_new``: the table
    has no row with one of the keys, such as that of an event, which is folded once.
    """
    if rows:
        prepared = prepare_insert(table, tuple(rows[0]), replaces=replaces)
        prepared.write(connection, [*map(prepared.values, rows)], are_new=are_new)


def driver(connection: sa.Connection) -> Driver:
    """Return the driver's own connection in the same transaction, for hot paths."""
    fairy = connection.connection
    return cast("Driver", fairy.info.get(DRIVER) or fairy.driver_connection)


DRIVER = "driver"
"""The key under which a store keeps a ``Driver`` with a connection that is not one itself."""


class PreparedInsert(NamedTuple):
    """An insert as the driver's text; ``values`` returns a row's values in its order, which binds faster than names."""

    text: str
    table: str
    columns: tuple[str, ...]
    keys: tuple[int, ...]
    """The places of the primary key's columns."""
    values: Callable[[Mapping[str, object]], tuple[object, ...]]

    def write(self, connection: sa.Connection, values: Sequence[tuple[object, ...]], *, are_new: bool = False) -> None:
        """Insert rows, each as its values (see ``Driver.insert``)."""
        if values:
            driver(connection).insert(self, values, are_new=are_new)


def names_of(columns: Sequence[str]) -> str:
    """Return names of columns as a list of SQL."""
    return ", ".join(f'"{name}"' for name in columns)


@cache
def prepare_insert(table: sa.Table, columns: tuple[str, ...], *, replaces: bool = True) -> PreparedInsert:
    """Return an insert of these columns that replaces rows with the same primary key, or leaves them as they are."""
    keys = [column.name for column in table.primary_key]
    others = [name for name in columns if name not in keys] if replaces else []
    change = ", ".join(f'"{name}" = excluded."{name}"' for name in others)
    text = f"""INSERT INTO {table.name} ({names_of(columns)}) VALUES ({", ".join("?" * len(columns))})
        ON CONFLICT ({names_of(keys)}) DO {f"UPDATE SET {change}" if others else "NOTHING"}"""  # noqa: S608 - names of ours
    places = tuple(columns.index(name) for name in keys)
    if len(columns) == 1:
        return PreparedInsert(text, table.name, columns, places, lambda row: (row[columns[0]],))
    return PreparedInsert(text, table.name, columns, places, itemgetter(*columns))
