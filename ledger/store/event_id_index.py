"""A SQLite index of event ids: the position and the content hash for each source and id.

It is derived and disposable: it records up to which position it is complete, and is caught up from the log.
"""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from itertools import chain, count
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ledger.errors import LocalFileError
from ledger.files import try_lock
from ledger.store.subscription import ReadCursor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS names (key BLOB PRIMARY KEY, position INTEGER NOT NULL, content BLOB NOT NULL)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads (subject TEXT PRIMARY KEY, position INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS begun (subject TEXT PRIMARY KEY, position INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sources (token TEXT NOT NULL, source TEXT NOT NULL, PRIMARY KEY (token, source));
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, position INTEGER NOT NULL, value BLOB NOT NULL);
"""
_BEGIN = (
    "INSERT INTO begun SELECT ?, ?, ? WHERE true ON CONFLICT (subject) DO UPDATE SET "
    "position = excluded.position, digest = excluded.digest WHERE excluded.position > position"
)
_FIND_ONE = "SELECT key, position, content FROM names WHERE key = ?"
_KEYS_A_QUERY = 500
_ROWS_A_STEP = 200
_CACHE_KIB = 64 * 1024
"""Keys are hashes, so that lookups touch random pages."""
_ENTRIES_AT_ONCE, _ENTRIES_A_PART = 20_000, 4_000
"""Entries that are committed in one transaction, and those of each part where there are more."""
_PACKED = struct.Struct("=16sq16s")
Change = tuple[str, "Sequence[Sequence[object]]"]
"""A statement, ending with its ``VALUES`` if it has some, and its rows of values."""


class EventIdEntry(NamedTuple):
    """One entry: the key of a source and id, the position of the event and the hash of its content."""

    key: bytes
    position: int
    content: bytes


_by_key = itemgetter(0)


class PackedEntries:
    """Many entries in little memory (40 bytes each), for ``commit_in_parts``; keys and hashes have 16 bytes."""

    def __init__(self) -> None:
        self._groups = [bytearray() for _ in range(256)]  # by the first byte of the key
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, entries: Iterable[EventIdEntry]) -> None:
        """Add entries.

        Raises:
            ValueError: a key or a hash has another length; nothing after it was added.
        """
        for entry in entries:
            if len(entry.key) != 16 or len(entry.content) != 16:  # noqa: PLR2004 - as in the class's first line
                raise ValueError(entry)
            self._groups[entry.key[0]] += _PACKED.pack(*entry)
            self._count += 1

    def take_parts(self, at_least: int) -> Iterator[list[EventIdEntry]]:
        """Remove all entries, and yield them in the order of their keys, in lists of at least this many."""
        groups, self._groups, self._count = self._groups, [bytearray() for _ in range(256)], 0
        part: list[EventIdEntry] = []
        for number, group in enumerate(groups):
            # stable: of two entries with one key the first is kept
            part += sorted(map(EventIdEntry._make, _PACKED.iter_unpack(group)), key=_by_key)
            groups[number] = bytearray()
            if len(part) >= at_least:
                yield part
                part = []
        if part:
            yield part


class EventIdIndex:
    """Entries, and a cursor for each subject up to which they are complete, committed together."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # One connection writes, in one thread at a time; another one reads.
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
        """Open the first unlocked file of ``name``, ``name-2``, ... for this process alone."""
        path, lock = claim_file(folder, name)
        index = cls(path)
        index._lock = lock
        return index

    def require_layout(self, number: int) -> None:
        """Empty a file that was written in another layout, so that it is caught up from the log again."""
        if self._writer.execute("PRAGMA user_version").fetchone()[0] == number:
            return
        for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
            self._writer.execute(f"DROP TABLE {name}")
        self._writer.executescript(f"{_SCHEMA} PRAGMA user_version = {number:d};")

    def table(self, schema: str) -> None:
        """Create another table in this file: ``CREATE TABLE IF NOT EXISTS ...``."""
        self._writer.executescript(schema)

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a query on such a table."""
        with closing(self._db.execute(query, values)) as found:
            return found.fetchall()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, EventIdEntry]:
        """Return the entries of these keys that exist."""
        if len(keys) == 1:  # a single lookup avoids the cost of a query for many
            row = self._db.execute(_FIND_ONE, keys).fetchone()
            return {} if row is None else {row[0]: EventIdEntry(*row)}
        found: dict[bytes, EventIdEntry] = {}
        for start in range(0, len(keys), _KEYS_A_QUERY):
            chunk = keys[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, position, content FROM names WHERE key IN ({marks})"  # noqa: S608 - only marks
            with closing(self._db.execute(query, chunk)) as rows:
                found.update((row[0], EventIdEntry(*row)) for row in rows)
        return found

    def head(self, subject: str) -> ReadCursor:
        """Return the cursor up to which the index is complete for a subject."""
        row = self._db.execute("SELECT position, digest FROM heads WHERE subject = ?", (subject,)).fetchone()
        return ReadCursor(*row) if row else ReadCursor()

    def heads(self) -> dict[str, ReadCursor]:
        """Return the cursors up to which the index is complete, by subject."""
        rows = self._db.execute("SELECT subject, position, digest FROM heads").fetchall()
        return {subject: ReadCursor(position, digest) for subject, position, digest in rows}

    def begun(self) -> dict[str, ReadCursor]:
        """Return the cursors, by subject, up to which entries may be stored although ``heads`` is behind them.

        They are left where ``commit_in_parts`` ended early.
        """
        query = "SELECT begun.* FROM begun LEFT JOIN heads USING (subject)"
        rows = self._db.execute(f"{query} WHERE begun.position > coalesce(heads.position, 0)").fetchall()
        return {subject: ReadCursor(position, digest) for subject, position, digest in rows}

    def position(self) -> int:
        """Return the newest position of any subject; 0 for an empty index."""
        (position,) = self._db.execute("SELECT coalesce(max(position), 0) FROM heads").fetchone()
        return int(position)

    def sources_with_token(self, token: str) -> list[str]:
        """Return the known sources with this subject token."""
        rows = self._db.execute("SELECT source FROM sources WHERE token = ?", (token,)).fetchall()
        return [row[0] for row in rows]

    def sources(self, prefix: str) -> list[str]:
        """Return all sources, ordered by the latest write to their subject (``prefix`` and token), newest first."""
        query = (
            "SELECT source FROM sources LEFT JOIN heads ON heads.subject = ? || sources.token "
            "ORDER BY heads.position DESC, source"
        )
        return [source for (source,) in self._db.execute(query, (prefix,)).fetchall()]

    def notes(self) -> dict[str, bytes]:
        """Return all values that a follower stored beside the entries."""
        return dict(self._db.execute("SELECT key, value FROM notes").fetchall())

    def commit(
        self,
        entries: Iterable[EventIdEntry],
        heads: dict[str, ReadCursor],
        sources: Iterable[tuple[str, str]] = (),
        notes: Iterable[tuple[str, int, bytes]] = (),
        changes: Iterable[Change] = (),
    ) -> None:
        """Add entries and move cursors in one transaction. The first entry of a key is kept.

        ``changes`` are statements on tables of ``table``, each with its rows of values.

        Raises:
            LocalFileError: the file cannot be written, for instance because the disk is full.
        """
        try:
            self._write(entries, heads, sources, notes, changes)
        except sqlite3.DatabaseError as error:
            if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise  # an error of ours
            raise LocalFileError(f"the index cannot be written ({error}); is the disk full?") from error

    def commit_in_parts(
        self, entries: PackedEntries, heads: dict[str, ReadCursor], sources: Iterable[tuple[str, str]] = ()
    ) -> Iterator[None]:
        """Take many entries and add them in the order of their keys, in transactions of which the last moves cursors.

        So each page is written once, and others can use the index whenever this yields. A process that is killed
        meanwhile leaves entries beyond the cursors. Each of them is true, as long as the log still has the event of
        the cursor in ``begun``.

        Raises:
            LocalFileError: as ``commit``.
        """
        if len(entries) > _ENTRIES_AT_ONCE:
            self.commit([], {}, changes=[(_BEGIN, [(subject, *cursor) for subject, cursor in heads.items()])])
            for part in entries.take_parts(_ENTRIES_A_PART):
                self.commit(part, {})
                yield
        self.commit(chain.from_iterable(entries.take_parts(_ENTRIES_AT_ONCE)), heads, sources)

    def _write(
        self,
        entries: Iterable[EventIdEntry],
        heads: dict[str, ReadCursor],
        sources: Iterable[tuple[str, str]],
        notes: Iterable[tuple[str, int, bytes]],
        changes: Iterable[Change],
    ) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            sorted_entries = sorted(entries, key=_by_key)  # stable: of two entries with one key the first is kept
            self._insert_rows("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", sorted_entries)
            self._writer.executemany(
                "INSERT INTO heads VALUES (?, ?, ?) ON CONFLICT (subject) DO UPDATE SET "
                "position = excluded.position, digest = excluded.digest WHERE excluded.position > position",
                [(subject, *cursor) for subject, cursor in heads.items()],
            )
            self._writer.executemany("INSERT OR IGNORE INTO sources VALUES (?, ?)", sources)
            self._writer.executemany(
                "INSERT INTO notes VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET position = excluded.position, "
                "value = excluded.value WHERE excluded.position >= position",
                notes,
            )
            for statement, values in changes:
                self._insert_rows(statement, values)
        except BaseException:
            self._roll_back()
            raise
        try:
            self._writer.execute("COMMIT")
        except sqlite3.DatabaseError:
            self._roll_back()
            raise

    def _insert_rows(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Insert hundreds of rows a statement, since each statement releases the interpreter's lock."""
        head, values, marks = statement.partition(" VALUES ")
        if not values:
            self._writer.executemany(statement, rows)
            return
        for start in range(0, len(rows), _ROWS_A_STEP):
            chunk = rows[start : start + _ROWS_A_STEP]
            self._writer.execute(head + values + ", ".join([marks] * len(chunk)), list(chain.from_iterable(chunk)))

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file and release its lock."""
        self._db.close()
        self._writer.close()
        if self._lock is not None:
            self._lock.close()


def claim_file(folder: Path, name: str) -> tuple[Path, IO[str]]:
    """Return the first unlocked file of ``name``, ``name-2``, ... and its lock, which holds until it is closed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = folder / (f"{name}.sqlite" if number == 1 else f"{name}-{number}.sqlite")
        lock = path.with_suffix(".lock").open("a")
        if try_lock(lock):
            return path, lock
        lock.close()
    raise AssertionError  # count() never ends
