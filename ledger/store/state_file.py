"""A role's state on disk with its position: a start reads this file and the log's tail instead of the whole log.

One SQLite file holds keyed tables, small records and the position up to which the log is contained, with the hash of
the event there. Changes stay in memory until ``commit`` writes all of them in one transaction. So the file always shows
one position, and a process that is killed goes back to its last commit.

Each value carries a checksum of its key and its bytes, since SQLite has none: a flipped bit must not become a wrong
figure. Damage raises ``StateError`` with ``damaged``; a full disk or a lock raises it without, since both pass.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Self
from zlib import crc32

import msgspec

from ledger.errors import StateError
from ledger.store.subscription import START, ReadCursor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CACHED, _CACHED_BYTES = 10_000, 4_000_000
"""The values of a table that stay in memory, and their bytes as stored, a tenth of what they take as objects."""
_PAGES_KIB = 16_384
_MAPPED_BYTES = 1 << 30
_LOG_PAGES = 4_000
"""Pages of the write-ahead log before they are moved into the file."""
_FORM = "2"
"""The form of the file itself; a file of another form is replaced."""
_CHECK_BYTES = 4
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
"""SQLite's primary result codes that say nothing about the file's content."""
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS progress (id INTEGER PRIMARY KEY, version TEXT, position INTEGER, digest TEXT)",
    "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID",
)


class StateTable[V]:
    """One table of a state file. Values are kept as msgpack; changes wait in memory for the next commit."""

    def __init__(self, file: StateFile, name: str, kind: type[V], cached: int) -> None:
        quoted = '"' + name.replace('"', '""') + '"'
        self._file = file
        self._decode = file.decoder(kind).decode
        self._cached = cached
        self._values: dict[str, V | None] = {}
        self._changed: set[str] = set()
        self._seen, self._seen_bytes = 0, 0
        self._read = f"SELECT value FROM {quoted} WHERE key = ?"  # noqa: S608 - a quoted name of ours
        self._write = f"INSERT OR REPLACE INTO {quoted} VALUES (?, ?)"  # noqa: S608
        self._delete = f"DELETE FROM {quoted} WHERE key = ?"  # noqa: S608
        file.execute(f"CREATE TABLE IF NOT EXISTS {quoted} (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def get(self, key: str, /) -> V | None:
        """Return the value, or ``None``.

        Raises:
            StateError: the file cannot be read.
        """
        if key in self._values:
            return self._values[key]
        found = self._file.execute(self._read, (key,))
        if found is None:
            self._values[key] = None
            return None
        self._seen, self._seen_bytes = self._seen + 1, self._seen_bytes + len(found[0])
        value = self._values[key] = self._file.decoded(self._decode, key, found[0])
        return value

    def put(self, key: str, value: V, /) -> None:
        """Set a value."""
        self._values[key] = value
        self._changed.add(key)

    def drop(self, key: str, /) -> None:
        """Remove a value."""
        self._values[key] = None
        self._changed.add(key)

    def write(self, connection: sqlite3.Connection, encode: Callable[[object], bytes]) -> None:
        """Write the changes, in the order of keys, so that neighbours share pages."""
        keys = sorted(self._changed)
        values = self._values
        rows = [(key, checked(key, encode(values[key]))) for key in keys if values[key] is not None]
        self._seen, self._seen_bytes = self._seen + len(rows), self._seen_bytes + sum(len(data) for _, data in rows)
        connection.executemany(self._write, rows)
        connection.executemany(self._delete, [(key,) for key in keys if values[key] is None])

    def settle(self) -> None:
        """Note that the changes are committed, and drop the oldest values from memory.

        Values are taken to be as long as those that were read and written of late.
        """
        self._changed.clear()
        kept = min(self._cached, _CACHED_BYTES * self._seen // max(1, self._seen_bytes)) if self._seen else self._cached
        for key in [*islice(self._values, max(0, len(self._values) - kept))]:
            del self._values[key]
        self._seen, self._seen_bytes = self._seen // 2, self._seen_bytes // 2


class StateFile:
    """A state file. One process may open it at a time, which the caller sees to.

    ``commit`` may run in another thread as long as its caller waits for it; ``close`` waits for a commit that runs.
    """

    def __init__(
        self,
        path: Path,
        version: str,
        *,
        enc_hook: Callable[[Any], Any] | None = None,
        dec_hook: Callable[[type, Any], Any] | None = None,
    ) -> None:
        """Open a file, or create it. The hooks are those of msgspec, for values of other types.

        ``version`` names the form and the meaning of the values; a file of another version is replaced.

        Raises:
            StateError: the file cannot be opened now, for example because the disk is full.
        """
        self._path, self._version = path, f"{_FORM} {version}"
        self._connection: sqlite3.Connection
        self._lock = threading.Lock()
        self._dec_hook = dec_hook
        self._encode = msgspec.msgpack.Encoder(enc_hook=enc_hook).encode
        self._tables: dict[str, StateTable[Any]] = {}
        self._records: dict[str, tuple[Any, bytes]] = {}
        self.discarded = ""
        """The reason why an earlier file was thrown away, or empty."""
        path.parent.mkdir(parents=True, exist_ok=True)
        known = self._connect() if path.exists() else None
        if known is None:
            self._start_again()
        elif known[0] not in {self._version, ""}:
            self.discarded = "it was written by another version, or with other settings"
            self._connection.close()
            self._start_again()
        else:
            self.cursor = ReadCursor(*known[1:])

    def _connect(self) -> tuple[str, int, str] | None:
        """Open the file; return its version, position and digest, or ``None`` for an empty or a damaged file."""
        self.cursor = START
        try:
            self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=30, check_same_thread=False)
            for pragma in (
                "journal_mode=WAL",
                "synchronous=NORMAL",  # safe, because a lost tail is read from the log again
                f"cache_size=-{_PAGES_KIB}",
                f"mmap_size={_MAPPED_BYTES}",
                f"wal_autocheckpoint={_LOG_PAGES}",
            ):
                self._connection.execute(f"PRAGMA {pragma}")
            for statement in _SCHEMA:
                self._connection.execute(statement)
            found = self._connection.execute("SELECT version, position, digest FROM progress").fetchone()
            match found or ("", 0, ""):
                case str(version), int(position), str(digest):
                    return version, position, digest
            self.discarded = "it is damaged (its position cannot be read)"
        except sqlite3.Error as error:
            if _passes(error):
                raise StateError(f"{self._path} cannot be opened: {error}") from error
            self.discarded = f"it is damaged ({error})"
        self._connection.close()
        return None

    def _start_again(self) -> None:
        self._remove()
        self._connect()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            path = self._path.with_name(self._path.name + suffix)
            path.unlink(missing_ok=True)

    def discard(self, reason: str) -> None:
        """Throw the content away, for example because the log shows another event at the position.

        Tables and records that were handed out before must not be used any more.
        """
        self.discarded = reason
        self._tables.clear()
        self._records.clear()
        self._connection.close()
        self._start_again()

    def close(self) -> None:
        """Close the file; changes since the last commit are lost."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ content

    def table[V](self, name: str, kind: type[V], *, cached: int = _CACHED) -> StateTable[V]:
        """Return a table; at most ``cached`` values stay in memory from commit to commit."""
        assert name not in self._tables, name
        table = self._tables[name] = StateTable(self, name, kind, cached)
        return table

    def record[V](self, name: str, kind: type[V]) -> V:
        """Return a small object of this name, ``kind()`` at first; each commit writes it if it has changed."""
        assert name not in self._records, name
        found = self.execute("SELECT value FROM records WHERE key = ?", (name,))
        record = kind() if found is None else self.decoded(self.decoder(kind).decode, name, found[0])
        self._records[name] = record, b"" if found is None else found[0]
        return record

    def commit(self, cursor: ReadCursor) -> None:
        """Write all changes, and the position that they belong to, in one transaction.

        Raises:
            StateError: the file cannot be written now; the changes are kept for another attempt.
        """
        written = {name: (record, checked(name, self._encode(record))) for name, (record, _) in self._records.items()}
        changed = [(name, data) for name, (_, data) in written.items() if data != self._records[name][1]]
        with self._lock, self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for table in self._tables.values():
                    table.write(self._connection, self._encode)
                self._connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?)", changed)
                progress = self._version, *cursor
                self._connection.execute("INSERT OR REPLACE INTO progress VALUES (1, ?, ?, ?)", progress)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        for table in self._tables.values():
            table.settle()
        self._records, self.cursor = written, cursor

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        """Run one statement of a table; return its first row, if it has any.

        Raises:
            StateError: the file cannot be read or written.
        """
        try:
            row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise self._fault(error) from error
        return row

    def decoder[V](self, kind: type[V]) -> msgspec.msgpack.Decoder[V]:
        """Return the decoder of a type."""
        return msgspec.msgpack.Decoder(kind, dec_hook=self._dec_hook)

    def decoded[V](self, decode: Callable[[bytes], V], key: str, data: object) -> V:
        """Return a stored value.

        Raises:
            StateError: the bytes are no such value, or not those that were written.
        """
        if not isinstance(data, bytes) or data != checked(key, data[:-_CHECK_BYTES]):
            raise self._damage(f"the value of {key!r} is not as it was written")
        try:
            return decode(data[:-_CHECK_BYTES])
        except Exception as error:  # a hook of the caller may raise any
            raise self._damage(f"the value of {key!r} has another form: {error}") from error

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _fault(self, error: sqlite3.Error) -> StateError:
        return StateError(f"{self._path} cannot be used: {error}") if _passes(error) else self._damage(str(error))

    def _damage(self, reason: str) -> StateError:
        return StateError(f"{self._path} is damaged: {reason}", damaged=True)


def checked(key: str, data: bytes) -> bytes:
    """Return the bytes of a value with the checksum that a reader compares."""
    return data + crc32(data, crc32(key.encode())).to_bytes(_CHECK_BYTES)


def _passes(error: sqlite3.Error) -> bool:
    """Return whether the fault lies outside the file, so that a later attempt may succeed."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code != sqlite3.SQLITE_IOERR_SHORT_READ and code & 0xFF in _PASSING
