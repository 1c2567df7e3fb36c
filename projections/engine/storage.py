"""The storage of views: one SQLite file for each generation, and a pointer to the live one."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.sql.compiler import SQLCompiler

from ledger.files import try_lock, wait_for_lock
from ledger.store.subscription import ReadCursor
from projections.engine.corrections import corrections_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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


_READ_PROGRESS = "SELECT position, digest, recorded, stopped_position, stopped_type, stopped_reason FROM progress"
_WRITE_PROGRESS = (
    "INSERT OR REPLACE INTO progress (id, position, digest, recorded, stopped_position, stopped_type, stopped_reason) "
    "VALUES (1, ?, ?, ?, ?, ?, ?)"
)
"""Kept as texts, because each read of a view starts with the first and each commit ends with the second."""
_MAPPED_BYTES = 1 << 30
_TIMEOUT_SECONDS = 30
_POSITIONAL = sqlite.dialect(paramstyle="qmark")
NAMED = sqlite.dialect(paramstyle="named")
"""The dialect for statements that are given to the driver as texts."""

FAILURES = (OperationalError, sqlite3.OperationalError)
"""Temporary failures of the database, as the library and the driver raise them: a full disk, an interrupted read."""


_allowed_to_fail_on_windows = suppress(OSError) if sys.platform == "win32" else nullcontext()


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


def views_folder(data_dir: Path) -> Path:
    """Return the folder of all views of a data directory."""
    return data_dir / "views"


@contextmanager
def claim(folder: Path, name: str) -> Iterator[bool]:
    """Yield whether this process may run a view; false where another process runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("a") as file:
        yield try_lock(file)


def live_generation(folder: Path, model: Projection) -> int | None:
    """Return the live generation of this version of the projection, or ``None``."""
    try:
        pointer = json.loads((folder / f"{model.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return int(pointer["generation"]) if pointer.get("version") == model.version else None


def live_or_first(folder: Path, model: Projection) -> int | None:
    """Return the live generation, or a new first one if no version has any; otherwise ``None``."""
    live = live_generation(folder, model)
    if live is None and not (folder / f"{model.name}.json").exists():
        live = next_generation(folder, model)
        folder.mkdir(parents=True, exist_ok=True)
        switch_to(folder, model, live)
    return live


def progress_of(folder: Path, model: Projection) -> Progress | None:
    """Return the progress of the live generation as its file holds it, or ``None`` if none is live."""
    generation = live_generation(folder, model)
    path = folder / f"{model.name}.g{generation}.sqlite"
    if generation is None or not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            return _progress_in(connection.execute(_READ_PROGRESS).fetchone())
    except sqlite3.OperationalError:  # its tables do not exist yet
        return Progress(ReadCursor())


def switch_to(folder: Path, model: Projection, generation: int) -> None:
    """Make this generation live, and delete the others."""
    pointer = folder / f"{model.name}.json"
    temporary = folder / f".{model.name}.{os.getpid()}.json"
    temporary.write_text(json.dumps({"generation": generation, "version": model.version}), encoding="utf-8")
    temporary.replace(pointer)
    link = folder / f".{model.name}.{os.getpid()}.link"
    link.unlink(missing_ok=True)
    with _allowed_to_fail_on_windows:  # links need a privilege on Windows
        link.symlink_to(f"{model.name}.g{generation}.sqlite")
        link.replace(folder / f"{model.name}.sqlite")  # for SQL tools; see docs/reference/sql.md
    for path in folder.glob(f"{model.name}.g*.sqlite*"):
        if not path.name.startswith(f"{model.name}.g{generation}."):
            with _allowed_to_fail_on_windows:  # Windows keeps a file that is open
                path.unlink(missing_ok=True)


def next_generation(folder: Path, model: Projection) -> int:
    """Return a generation number that no file of this projection has."""
    taken = [int(path.name.split(".")[1][1:]) for path in folder.glob(f"{model.name}.g*.sqlite")]
    return max(taken, default=0) + 1


def open_generation(folder: Path, model: Projection, generation: int) -> sa.Engine:
    """Return the database of one generation; create it where it does not exist."""
    path = folder / f"{model.name}.g{generation}.sqlite"
    if not _has_tables(path):
        folder.mkdir(parents=True, exist_ok=True)
        # One process or thread at a time, since SQLite refuses the others at once, whatever their time-out.
        with (folder / f"{model.name}.create.lock").open("a") as file:
            wait_for_lock(file)
            _create_tables(path, model)
    return _engine(path)


def _has_tables(path: Path) -> bool:
    """Return whether the tables of a generation exist; they are created in one transaction."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=_TIMEOUT_SECONDS)) as connection:
        found = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = ?", (progress_table.name,))
        return bool(found.fetchone()[0])


def _create_tables(path: Path, model: Projection) -> None:
    engine = _engine(path)
    try:
        with engine.begin() as connection:
            for metadata in (model.metadata, corrections_metadata, progress_metadata):
                metadata.create_all(connection)
    finally:
        engine.dispose()


def _engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _TIMEOUT_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin explicitly, because the driver starts none for reads
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # safe, because a lost tail is read from the log again
        connection.execute("PRAGMA cache_size=-65536")
        # Writes by another process empty SQLite's own cache, ten times a second, so pages are read from mapped memory.
        connection.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        driver(connection).execute("BEGIN")

    return engine


def read_progress(connection: sa.Connection) -> Progress:
    """Return the progress of the view in this database."""
    return _progress_in(driver(connection).execute(_READ_PROGRESS).fetchone())


def _progress_in(row: tuple[Any, ...] | None) -> Progress:
    if row is None:
        return Progress(ReadCursor())
    position, digest, recorded, *stop = row
    return Progress(ReadCursor(position, digest), recorded, Stop(*stop) if stop[0] is not None else None)


def write_progress(connection: sa.Connection, progress: Progress) -> None:
    """Store the view's position within the transaction that changes the view."""
    stop = progress.stopped or (None, None, None)
    driver(connection).execute(_WRITE_PROGRESS, (*progress.anchor, progress.recorded, *stop))


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, or replace rows with the same primary key."""
    write(connection, upserting(table), rows)


def write(connection: sa.Connection, statement: sa.Insert, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows that all have the same columns, by the driver itself.

    A busy view writes constantly, and SQLAlchemy's parameters would cost more than the write.
    """
    if rows:
        prepared = prepare_insert(statement, tuple(rows[0]))
        prepared.write(connection, [*map(prepared.values, rows)])


def driver(connection: sa.Connection) -> sqlite3.Connection:
    """Return the driver's own connection in the same transaction, for hot paths."""
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


class PreparedInsert(NamedTuple):
    """An insert as the driver's text; ``values`` returns a row's values in its order, which binds faster than names."""

    text: str
    values: Callable[[Mapping[str, object]], tuple[object, ...]]

    def write(self, connection: sa.Connection, values: Sequence[tuple[object, ...]]) -> None:
        """Insert rows, each as its values."""
        if values:
            driver(connection).executemany(self.text, values)


@cache
def prepare_insert(statement: sa.Insert, columns: tuple[str, ...]) -> PreparedInsert:
    """Return an insert of these columns; statements are kept, because compiling one costs more than a write."""
    compiled = statement.compile(dialect=_POSITIONAL, column_keys=list(columns))
    assert isinstance(compiled, SQLCompiler)
    order = compiled.positiontup or []
    if len(order) == 1:
        return PreparedInsert(str(compiled), lambda row: (row[order[0]],))
    return PreparedInsert(str(compiled), itemgetter(*order))


@cache
def upserting(table: sa.Table) -> sa.Insert:
    """Return a statement that inserts rows, or replaces rows with the same primary key."""
    insert = sqlite.insert(table)
    keys = [column.name for column in table.primary_key]
    values = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=values)
