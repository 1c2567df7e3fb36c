"""Views in SQLite: one file for each generation, and a pointer to the live one."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import sqlalchemy as sa

from ledger.files import wait_for_lock
from ledger.store.subscription import ReadCursor
from projections.engine.corrections import corrections_metadata
from projections.engine.storage import (
    READ_PROGRESS,
    Progress,
    claim,
    driver,
    progress_in,
    progress_metadata,
    progress_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from projections.engine.projection import Projection
    from projections.engine.storage import PreparedInsert

_MAPPED_BYTES = 1 << 30
_PAGES_KIB = 16_384
"""Pages in memory for each connection: what a transaction changes, since others are read from mapped memory."""
_TIMEOUT_SECONDS = 30
_STEPS = 2000
"""SQLite checks the clock after this many steps of its virtual machine."""
_allowed_to_fail_on_windows = suppress(OSError) if sys.platform == "win32" else nullcontext()


class SqliteDriver(sqlite3.Connection):
    """A connection of the driver (see ``projections.engine.storage.Driver``)."""

    def insert(self, into: PreparedInsert, rows: Sequence[tuple[object, ...]], /, *, are_new: bool = False) -> None:  # noqa: ARG002 - no quicker
        """Insert rows, each as its values."""
        self.executemany(into.text, rows)

    @contextmanager
    def limited(self, seconds: float, /) -> Iterator[None]:
        """Interrupt a statement that takes longer."""
        deadline = time.perf_counter() + seconds
        self.set_progress_handler(lambda: time.perf_counter() > deadline, _STEPS)
        try:
            yield
        finally:
            self.set_progress_handler(None, 0)


class SqliteStore:
    """The views in a folder (see ``projections.engine.storage.ViewStore``)."""

    answers_at_once = True
    claim_seconds = 0.2
    addresses: tuple[tuple[str, int], ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def claim(self, name: str) -> AbstractContextManager[bool]:
        """Return whether this process may run a view; false where another process runs it."""
        return claim(self.folder, name)

    def live_generation(self, model: Projection) -> int | None:
        """Return the live generation of this version of the projection, or ``None``."""
        pointer = self._pointer(model)
        return int(pointer["generation"]) if pointer and pointer.get("version") == model.version else None

    def _pointer(self, model: Projection) -> dict[str, Any] | None:
        """Return the live generation of any version, and that version."""
        try:
            pointer: dict[str, Any] = json.loads((self.folder / f"{model.name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return pointer

    def is_new(self, model: Projection) -> bool:
        """Return whether no version of the projection has ever had a live generation."""
        return not (self.folder / f"{model.name}.json").exists()

    def progress_of(self, model: Projection) -> Progress | None:
        """Return the progress of the live generation, or ``None`` if none is live; nothing is created."""
        generation = self.live_generation(model)
        if generation is None or not (path := self._path(model, generation)).exists():
            return None
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
                return progress_in(connection.execute(READ_PROGRESS).fetchone())
        except sqlite3.OperationalError:  # its tables do not exist yet
            return Progress(ReadCursor())

    def next_generation(self, model: Projection) -> int:
        """Return a generation number that no file of this projection has."""
        taken = [int(path.name.split(".")[1][1:]) for path in self.folder.glob(f"{model.name}.g*.sqlite")]
        return max(taken, default=0) + 1

    def open_generation(self, model: Projection, generation: int, *, read_only: bool = False) -> sa.Engine:  # noqa: ARG002 - WAL needs it writable
        """Return the database of one generation; create it where it does not exist."""
        path = self._path(model, generation)
        if not _has_tables(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            # One process or thread at a time, since SQLite refuses the others at once, whatever their time-out.
            with (self.folder / f"{model.name}.create.lock").open("a") as file:
                wait_for_lock(file)
                _create_tables(path, model)
        return _engine(path)

    def switch_to(self, model: Projection, generation: int) -> None:
        """Make this generation live, and delete the others."""
        pointer = self.folder / f"{model.name}.json"
        temporary = self.folder / f".{model.name}.{os.getpid()}.json"
        temporary.write_text(json.dumps({"generation": generation, "version": model.version}), encoding="utf-8")
        temporary.replace(pointer)
        link = self.folder / f".{model.name}.{os.getpid()}.link"
        link.unlink(missing_ok=True)
        with _allowed_to_fail_on_windows:  # links need a privilege on Windows
            link.symlink_to(f"{model.name}.g{generation}.sqlite")
            link.replace(self.folder / f"{model.name}.sqlite")  # for SQL tools; see docs/reference/sql.md
        self._keep_only(model, generation)

    def drop_unfinished(self, model: Projection) -> None:
        """Delete the generations that no switch has made live: builds that were interrupted."""
        pointer = self._pointer(model)
        if pointer is not None or self.is_new(model):  # an unreadable pointer may name any of them
            self._keep_only(model, None if pointer is None else int(pointer["generation"]))

    def _keep_only(self, model: Projection, generation: int | None) -> None:
        for path in self.folder.glob(f"{model.name}.g*.sqlite*"):
            if not path.name.startswith(f"{model.name}.g{generation}."):
                with _allowed_to_fail_on_windows:  # Windows keeps a file that is open
                    path.unlink(missing_ok=True)

    def place_of(self, model: Projection, generation: int) -> str:
        """Return the name of a generation's file, below the data directory."""
        return f"views/{self._path(model, generation).name}"

    def close(self) -> None:
        """Do nothing, because a store of files keeps none open."""

    def _path(self, model: Projection, generation: int) -> Path:
        return self.folder / f"{model.name}.g{generation}.sqlite"


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
        create_tables(engine, model)
    finally:
        engine.dispose()


def create_tables(engine: sa.Engine, model: Projection) -> None:
    """Create the tables of a projection, and those of the engine beside them."""
    with engine.begin() as connection:
        for metadata in (model.metadata, corrections_metadata, progress_metadata):
            metadata.create_all(connection)


def memory_engine() -> sa.Engine:
    """Return an empty database in memory, with one connection for all threads."""
    return _begun(
        sa.create_engine(
            "sqlite://",
            poolclass=sa.StaticPool,
            connect_args={"check_same_thread": False, "factory": SqliteDriver},
        )
    )


def _engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _TIMEOUT_SECONDS, "factory": SqliteDriver})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # safe, because a lost tail is read from the log again
        connection.execute(f"PRAGMA cache_size=-{_PAGES_KIB}")
        # Writes by another process empty SQLite's own cache, ten times a second, so pages are read from mapped memory.
        connection.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")

    return _begun(engine)


def _begun(engine: sa.Engine) -> sa.Engine:
    """Let transactions of an engine begin explicitly, because the driver starts none for reads."""

    @sa.event.listens_for(engine, "connect", insert=True)
    def leave(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        driver(connection).execute("BEGIN")

    return engine
