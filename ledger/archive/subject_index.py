"""An index of the subjects in an archive: in which files a subject has events. It can be made again from the files."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from itertools import takewhile
from typing import TYPE_CHECKING

import msgspec

from ledger.errors import LocalFileError
from ledger.files import read_bounded, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ledger.archive.event_archive import ArchiveFile
    from ledger.archive.parquet import EventTable
    from ledger.store.streams import Retired

_LAYOUT = 2
_ABOUT_BYTES = 4096
_TABLES = """
create table subjects (
    subject text not null, file integer not null, last integer not null, primary key (subject, file)
) strict, without rowid;
"""
_AFTER_ALL = "\U0010ffff"
_LONG_BEGINNING = 3
"""A wildcard behind fewer tokens may match most of the archive, so that each file is looked at."""


class SubjectIndex:
    """The index of the subjects in some files of an archive."""

    def __init__(self, path: Path, parts: Sequence[ArchiveFile], retired: Retired) -> None:
        """``parts`` are the files with the retired positions, in order."""
        self.parts = list(parts)
        self._path, self._about, self._until = path, path.with_suffix(".json"), retired.until
        whole = (_LAYOUT, retired.until, retired.digest, self.parts)
        self._archive = hashlib.sha256(msgspec.json.encode(whole)).hexdigest()

    def is_current(self) -> bool:
        """Return whether the file is there, undamaged, and of this archive.

        A subject that is missed would be taken for one without events, so that the whole file is compared.
        """
        try:
            about = msgspec.json.decode(read_bounded(self._about, _ABOUT_BYTES), type=list[str])
            return about == [self._archive, _hash_of(self._path)]
        except (OSError, ValueError):
            return False

    def make(self, tables: Iterable[EventTable]) -> None:
        """Write the index anew; ``tables`` are the events of the files, in order.

        Raises:
            OSError: it cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(temporary)) as database:
                database.executescript(f"pragma synchronous = off; {_TABLES}")
                for number, table in enumerate(tables):
                    rows = ((subject, number, last) for subject, last in table.newest_positions(self._until))
                    database.executemany("insert into subjects values (?, ?, ?)", rows)
                    database.commit()
            about = [self._archive, _hash_of(temporary)]
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(self._path)
            write_atomically(self._about, msgspec.json.encode(about))
        except sqlite3.Error as error:
            raise OSError(f"{self._path} cannot be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def parts_of(self, subject: str, after: int) -> list[ArchiveFile]:
        """Return the files that may have events of a subject or wildcard after a position, in order."""
        beginning, is_wildcard = _before_wildcard(subject)
        if is_wildcard and beginning.count(".") < _LONG_BEGINNING:
            return [part for part in self.parts if part.last > after]
        where, values = ("subject = ?", [subject])
        if is_wildcard:
            where, values = "subject >= ? and subject < ?", [beginning, beginning + _AFTER_ALL]
        query = f"select distinct file from subjects where {where} and last > ? order by file"  # noqa: S608 - a constant
        return [self.parts[int(file)] for (file,) in self._rows(query, [*values, after])]

    def subjects(self, beginning: str) -> list[str]:
        """Return the subjects with a beginning, in order."""
        query = "select distinct subject from subjects where subject >= ? and subject < ? order by subject"
        return [str(subject) for (subject,) in self._rows(query, [beginning, beginning + _AFTER_ALL])]

    def _rows(self, query: str, values: Sequence[str | int]) -> list[tuple[str | int, ...]]:
        """Return the rows of a query.

        Raises:
            LocalFileError: the index cannot be read.
        """
        try:
            with closing(self._connect()) as database:
                return database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LocalFileError(f"{self._path} cannot be read: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True)


def _hash_of(path: Path) -> str:
    """Return the SHA-256 of a file (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _before_wildcard(subject: str) -> tuple[str, bool]:
    """Return the beginning of a subject before its first wildcard, and whether it has one."""
    tokens = subject.split(".")
    literal = [*takewhile(lambda token: token not in {"*", ">"}, tokens)]
    return "".join(f"{token}." for token in literal), len(literal) < len(tokens)
