"""An index of names: which (source, id) stands where in the log, with which content.

Derived and disposable: it knows up to where it is complete, and is caught up from the log.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import chain, count
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ledger.errors import UnavailableError
from ledger.files import try_lock
from ledger.store.subscription import ReadCursor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS names (key BLOB PRIMARY KEY, position INTEGER NOT NULL, content BLOB NOT NULL)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads (subject TEXT PRIMARY KEY, position INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sources (token TEXT NOT NULL, source TEXT NOT NULL, PRIMARY KEY (token, source));
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, position INTEGER NOT NULL, value BLOB NOT NULL);
"""
_FIND_ONE = "SELECT key, position, content FROM names WHERE key = ?"
_KEYS_A_QUERY = 500
_ROWS_A_STEP = 200
_CACHE_KIB = 64 * 1024
"""Names are hashes: each lies on a page of its own, of any of them."""
Change = tuple[str, "Sequence[Sequence[Any]]"]
"""A statement, which ends with its ``VALUES`` where it has some, and its rows of values."""


class EventIdEntry(NamedTuple):
    """One entry: the key of a name, the position of its event and the hash of its content."""

    key: bytes
    position: int
    content: bytes


_by_key = itemgetter(0)


class EventIdIndex:
    """Entries and heads (up to where each subject is complete), committed together."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # Written through one connection, by one thread at a time; read through another.
        self._writer = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA synchronous=NORMAL")
        self._writer.executescript(_SCHEMA)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
        for connection in (self._writer, self._db):
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._lock: IO[str] | None = None

    @classmethod
    def open_exclusive(cls, folder: Path, name: str) -> EventIdIndex:
        """An index that no other process writes: the first file of ``name``, ``name-2``, ... that nobody holds."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = folder / (f"{name}.sqlite" if number == 1 else f"{name}-{number}.sqlite")
            held = path.with_suffix(".lock").open("a")
            if not try_lock(held):
                held.close()
                continue
            index = cls(path)
            index._lock = held
            return index
        raise AssertionError  # there is always another number

    def table(self, schema: str) -> None:
        """Keep another table here: ``CREATE TABLE IF NOT EXISTS ...``."""
        self._writer.executescript(schema)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """What a query on such a table finds."""
        with closing(self._db.execute(query, values)) as found:
            return found.fetchall()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, EventIdEntry]:
        """The entries of these keys, where there are any."""
        if len(keys) == 1:  # one that waits alone is not kept by what many need
            row = self._db.execute(_FIND_ONE, keys).fetchone()
            return {} if row is None else {row[0]: EventIdEntry(*row)}
        found: dict[bytes, EventIdEntry] = {}
        for start in range(0, len(keys), _KEYS_A_QUERY):
            part = keys[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, position, content FROM names WHERE key IN ({marks})"  # noqa: S608 - only marks
            with closing(self._db.execute(query, part)) as rows:
                found.update((row[0], EventIdEntry(*row)) for row in rows)
        return found

    def head(self, subject: str) -> ReadCursor:
        """Up to where the index is complete for a subject."""
        row = self._db.execute("SELECT position, digest FROM heads WHERE subject = ?", (subject,)).fetchone()
        return ReadCursor(*row) if row else ReadCursor()

    def heads(self) -> dict[str, ReadCursor]:
        """Up to where the index is complete, by subject."""
        rows = self._db.execute("SELECT subject, position, digest FROM heads").fetchall()
        return {subject: ReadCursor(position, digest) for subject, position, digest in rows}

    def sources_with_token(self, token: str) -> list[str]:
        """The sources that were seen with this subject token."""
        rows = self._db.execute("SELECT source FROM sources WHERE token = ?", (token,)).fetchall()
        return [row[0] for row in rows]

    def sources(self, prefix: str) -> list[str]:
        """Return all sources, those first whose subject (a prefix and their token) was written to last."""
        query = (
            "SELECT source FROM sources LEFT JOIN heads ON heads.subject = ? || sources.token "
            "ORDER BY heads.position DESC, source"
        )
        return [source for (source,) in self._db.execute(query, (prefix,)).fetchall()]

    def notes(self) -> dict[str, bytes]:
        """What a follower noted beside the names, whole."""
        return dict(self._db.execute("SELECT key, value FROM notes").fetchall())

    def commit(
        self,
        names: Iterable[EventIdEntry],
        heads: dict[str, ReadCursor],
        sources: Iterable[tuple[str, str]] = (),
        notes: Iterable[tuple[str, int, bytes]] = (),
        also: Iterable[Change] = (),
    ) -> None:
        """Add entries and move heads in one transaction. The first entry of a name stays.

        ``also`` are statements, each with its rows of values, on tables of ``table``.

        Raises:
            UnavailableError: the file cannot be written, for instance because the disk is full.

        """
        try:
            self._write(names, heads, sources, notes, also)
        except sqlite3.OperationalError as error:
            message = f"the index cannot be written ({error}); is the disk full?"
            raise UnavailableError(message) from error

    def _write(
        self,
        names: Iterable[EventIdEntry],
        heads: dict[str, ReadCursor],
        sources: Iterable[tuple[str, str]],
        notes: Iterable[tuple[str, int, bytes]],
        also: Iterable[Change],
    ) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            in_order = sorted(names, key=_by_key)  # of two with one key the first stays the first
            self._insert_rows("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", in_order)
            self._writer.executemany(
                "INSERT INTO heads VALUES (?, ?, ?) ON CONFLICT (subject) DO UPDATE SET "
                "position = excluded.position, digest = excluded.digest WHERE excluded.position > position",
                [(subject, *anchor) for subject, anchor in heads.items()],
            )
            self._writer.executemany("INSERT OR IGNORE INTO sources VALUES (?, ?)", sources)
            self._writer.executemany(
                "INSERT INTO notes VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET position = excluded.position, "
                "value = excluded.value WHERE excluded.position >= position",
                notes,
            )
            for statement, values in also:
                self._insert_rows(statement, values)
        except BaseException:
            self._roll_back()
            raise
        try:
            self._writer.execute("COMMIT")
        except sqlite3.OperationalError:
            self._roll_back()
            raise

    def _insert_rows(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Hundreds of rows a step: the interpreter's lock is left at each, and has to be got back from others."""
        head, values, marks = statement.partition(" VALUES ")
        if not values:
            self._writer.executemany(statement, rows)
            return
        for start in range(0, len(rows), _ROWS_A_STEP):
            part = rows[start : start + _ROWS_A_STEP]
            self._writer.execute(head + values + ", ".join([marks] * len(part)), list(chain.from_iterable(part)))

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._writer.close()
        if self._lock is not None:
            self._lock.close()
