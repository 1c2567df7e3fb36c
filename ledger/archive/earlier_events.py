"""The events that have left the stream, read from the archive by position or, through an index, by subject."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from ledger.archive.event_archive import Archive, ArchiveError
from ledger.archive.subject_index import SubjectIndex
from ledger.errors import LedgerError, LocalFileError
from ledger.store.log import Recorded, digest_of
from ledger.transparency.sealer import GAP_SUBJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from ledger.archive.event_archive import ArchiveFile
    from ledger.archive.parquet import EventTable
    from ledger.store.log import Log
    from ledger.store.streams import Retired

_TABLES = 2
"""Files that stay in memory; one holds at most 65,536 events."""
_BATCH = 16_384


class ArchivedEvents:
    """The retired events of a log (see ``ledger.store.log.EarlierEvents``), each file compared with the manifest.

    Every error names the folder, because the archive is the only place of these events.
    """

    def __init__(self, archive: Archive, index: Path, retired: Retired) -> None:
        """``index`` is the file of the subjects' index, which is made where it is missing or of another archive."""
        self._archive, self._path, self._retired = archive, index, retired
        self._tables: OrderedDict[str, EventTable] = OrderedDict()
        self._index: SubjectIndex | None = None
        self._lock = Lock()

    async def check(self) -> None:
        """Check that the archive has the retired events of this log; make the index where it is missing.

        Raises:
            LocalFileError: an event is missing, a file is damaged, or it is the archive of another log. Another
                machine may have it, and it may come back.
            MissingExtraError: the library that reads it is not installed.
        """
        import ledger.archive.parquet  # noqa: F401 - reports a missing extra at once

        await _in_thread(self._opened)

    async def at(self, position: int) -> Recorded | None:
        """Return the event at a position, None if it was lost.

        Raises:
            LocalFileError: as in ``check``.
        """
        return await _in_thread(self._at, position)

    async def batches(self, position: int, until: int) -> AsyncIterator[list[Recorded]]:
        """Yield the events after one position up to another, oldest first; positions that were lost are left out.

        Raises:
            LocalFileError: as in ``check``.
        """
        while position < until:
            end = min(until, position + _BATCH)
            found = await _in_thread(self._range, position, end)
            if found:
                yield found
            position = end

    async def of_subject(self, subject: str, after: int, at_most: int) -> list[Recorded]:
        """Return events of a subject or wildcard after a position, oldest first; none if there are no more.

        Raises:
            LocalFileError: as in ``check``.
        """
        return await _in_thread(self._of_subject, subject, after, at_most)

    async def last(self, subject: str) -> Recorded | None:
        """Return the newest event of a subject or wildcard.

        Raises:
            LocalFileError: as in ``check``.
        """
        return await _in_thread(self._last, subject)

    async def subjects(self, beginning: str) -> list[str]:
        """Return the subjects with a beginning, in order.

        Raises:
            LocalFileError: as in ``check``.
        """
        return await _in_thread(lambda: self._opened().subjects(beginning))

    def _at(self, position: int) -> Recorded | None:
        found = self._range(position - 1, position)
        return found[0] if found else None

    def _range(self, position: int, until: int) -> list[Recorded]:
        """Return the events after one position up to another."""
        found: list[Recorded] = []
        for part in self._opened().parts:
            if part.last > position and part.first <= until:
                first = max(position + 1, part.first)
                found += self._table(part).rows(first - part.first, min(until, part.last) - first + 1)
        return [event for event in found if event.subject != GAP_SUBJECT]

    def _of_subject(self, subject: str, after: int, at_most: int) -> list[Recorded]:
        found: list[Recorded] = []
        for part in self._opened().parts_of(subject, after):
            found += self._table(part).of_subjects(subject, after, self._retired.until, at_most - len(found))
            if len(found) >= at_most:
                break
        return found

    def _last(self, subject: str) -> Recorded | None:
        for part in reversed(self._opened().parts_of(subject, 0)):
            if found := self._table(part).of_subjects(subject, 0, self._retired.until, newest=True):
                return found[0]
        return None

    def _opened(self) -> SubjectIndex:
        """Return the index; the archive is checked as a whole before it is made."""
        with self._lock:
            if self._index is None:
                self._index = self._open()
            return self._index

    def _open(self) -> SubjectIndex:
        try:
            parts = _contiguous(self._archive, self._retired.until)
            index = SubjectIndex(self._path, parts, self._retired)
            if not index.is_current():
                index.make(self._read(part) for part in parts)
                for other in self._path.parent.glob("archived-subjects-*"):  # of an earlier retirement
                    if other.stem != self._path.stem:
                        other.unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise self._named(ArchiveError(f"the archive cannot be read: {error}", 1)) from error
        except ArchiveError as error:
            raise self._named(error) from error
        return index

    def _read(self, part: ArchiveFile) -> EventTable:
        """Return a file's events, all compared with the manifest; the last retired one with the log's digest."""
        from ledger.archive.parquet import EventTable

        try:
            data = self._archive.path_of(part).read_bytes()
            if hashlib.sha256(data).hexdigest() != part.sha256:
                raise ArchiveError("the archive's file was changed", part.first, part.file)
            table = EventTable(data)
        except OSError as error:
            raise ArchiveError(f"the archive's file cannot be read: {error}", part.first, part.file) from error
        if not table.is_range(part.first, part.last):
            raise ArchiveError("the archive's file lacks positions", part.first, part.file)
        if part.first <= (until := self._retired.until) <= part.last:
            (last,) = table.rows(until - part.first, 1)
            if digest_of(last.data) != self._retired.digest:
                raise ArchiveError("it is the archive of another log", until, part.file)
        return table

    def _table(self, part: ArchiveFile) -> EventTable:
        with self._lock:
            table = self._tables.pop(part.file, None)
            if table is None:
                try:
                    table = self._read(part)
                except ArchiveError as error:
                    raise self._named(error) from error
            self._tables[part.file] = table
            while len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
            return table

    def _named(self, error: ArchiveError) -> LocalFileError:
        problem = f"{error.problem} ({error.file or self._archive.folder.name}, position {error.position})"
        return LocalFileError(
            f"{problem}; the archive alone has the events up to position {self._retired.until}: bring a copy of the "
            f"whole folder {self._archive.folder} from a backup or from another machine"
        )


async def _in_thread[**P, T](read: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Read in another thread.

    Raises:
        LocalFileError: it failed. No event is judged by an error of ours.
    """
    try:
        return await asyncio.to_thread(read, *given, **named)
    except LedgerError:
        raise
    except Exception as error:
        raise LocalFileError(f"the archive cannot be read: {error!r}") from error


def _contiguous(archive: Archive, until: int) -> list[ArchiveFile]:
    """Return the files with the positions from 1 to another.

    Raises:
        ArchiveError: a position or a file is missing.
    """
    parts = [part for part in archive.parts() if part.first <= until]
    expected = 1
    for part in parts:
        if part.first != expected:
            break
        expected = part.last + 1
    if expected <= until:
        raise ArchiveError("the archive lacks events", expected)
    if missing := [part for part in parts if not archive.path_of(part).exists()]:
        raise ArchiveError("the archive lacks a file", missing[0].first, missing[0].file)
    return parts


def read_earlier_events(log: Log, data_dir: Path) -> None:
    """Let a log read the events that have left its stream, if there are any, from the archive of a data directory."""
    if log.retired.until:
        log.earlier = archived_events(data_dir, log.retired)


def archived_events(data_dir: Path, retired: Retired) -> ArchivedEvents:
    """Return the retired events as the archive of a data directory has them."""
    name = f"archived-subjects-{retired.until}-{retired.digest[:8]}.sqlite"
    return ArchivedEvents(Archive(data_dir / "archive"), data_dir / "index" / name, retired)
