"""The archive as a source of events: of old ones in bulk, for readers far behind, and of those that left the stream."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from functools import partial
from typing import TYPE_CHECKING

from ledger.archive.event_archive import Archive, ArchiveError
from ledger.errors import MissingExtraError
from ledger.store.log import Recorded, digest_of
from ledger.store.streams import stream_config
from ledger.transparency.sealer import GAP_SUBJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from ledger.archive.event_archive import ArchiveFile
    from ledger.store.log import Log

_log = logging.getLogger(__name__)


class EarlierEvents:
    """The events that have left the stream (see ``ledger.store.log.Earlier``), read from an archive.

    Each file is compared with the manifest as a whole. Errors name the folder, because the archive is the only place
    of these events then.
    """

    def __init__(self, archive: Archive, until: int) -> None:
        """``until`` is the last position that has left the stream."""
        self._archive, self._until = archive, until

    async def batches(self, position: int, until: int) -> AsyncIterator[list[Recorded]]:
        """Yield the events after one position up to another, oldest first; positions that were lost are left out.

        Raises:
            ArchiveError: the archive lacks an event, or a file is damaged.
        """
        for part in self._parts(position + 1):
            if part.first > until:
                return
            for batch in await self._read(part, lambda part: read_events(self._archive, part, position, until)):
                yield [event for event in batch if event.subject != GAP_SUBJECT]

    async def of_subject(self, subject: str, after: int, at_most: int) -> list[Recorded]:
        """Return events of a subject or wildcard after a position, oldest first; none if there are no more.

        Raises:
            ArchiveError: as in ``batches``.
        """
        found: list[Recorded] = []
        for part in self._parts(after + 1):
            some = await self._read(part, partial(self._of_subjects, is_wanted=_matcher(subject)))
            found += [event for event in some if after < event.position <= self._until]
            if len(found) >= at_most:
                break
        return found[:at_most]

    async def last(self, subject: str) -> Recorded | None:
        """Return the newest event of a subject or wildcard.

        Raises:
            ArchiveError: as in ``batches``.
        """
        for part in reversed(self._parts(1)):
            found = await self._read(part, partial(self._of_subjects, is_wanted=_matcher(subject)))
            if found := [event for event in found if event.position <= self._until]:
                return found[-1]
        return None

    async def last_of_each(self, subjects: Sequence[str]) -> dict[str, Recorded]:
        """Return the newest event of each of these subjects that has one.

        Raises:
            ArchiveError: as in ``batches``.
        """
        newest, wanted = dict[str, Recorded](), set(subjects)
        for part in reversed(self._parts(1)):
            found = await self._read(part, partial(self._of_subjects, is_wanted=wanted.__contains__))
            newest |= {event.subject: event for event in found if event.position <= self._until}
            wanted -= newest.keys()
            if not wanted:
                break
        return newest

    async def _read[T](self, part: ArchiveFile, read: Callable[[ArchiveFile], T]) -> T:
        """Read a file in another thread, and say where events are missing if that fails."""
        try:
            return await asyncio.to_thread(read, part)
        except ArchiveError as error:
            raise ArchiveError(f"{error}; {self._remedy()}", error.position) from error

    def _remedy(self) -> str:
        return (
            f"the archive alone has the events up to {self._until}: bring back a copy of the folder "
            f"{self._archive.folder} from a backup or from another machine"
        )

    def _of_subjects(self, part: ArchiveFile, is_wanted: Callable[[str], bool]) -> list[Recorded]:
        from ledger.archive.parquet import read_subjects

        data = _bytes_of(self._archive, part)
        try:
            return read_subjects(data, is_wanted)
        except OSError as error:
            raise ArchiveError(f"the archive's file cannot be read: {error}", part.first, part.file) from error

    def _parts(self, first: int) -> list[ArchiveFile]:
        """Return the files with the events from a position on that have left the stream."""
        parts = [part for part in self._archive.parts() if part.last >= first and part.first <= self._until]
        if first <= self._until and (not parts or parts[0].first > first or parts[-1].last < self._until):
            raise ArchiveError(f"{self._archive.folder} lacks events; {self._remedy()}", first)
        return parts


async def begin_after_retired(log: Log, folder: Path, field: str) -> None:
    """Let a log read the events that have left its stream from the archive in a folder.

    ``field`` of the stream's metadata names the last position that has left it.
    """
    config = await stream_config(log.client, log.stream)
    until = int((config or {}).get("metadata", {}).get(field, 0))
    if until:
        log.begin_at(until + 1, EarlierEvents(Archive(folder), until))


def _matcher(subject: str) -> Callable[[str], bool]:
    """Return whether a subject matches this one, which may have wildcards."""
    tokens = {"*": "[^.]+", ">": ".+"}
    pattern = re.compile(r"\.".join(tokens.get(token, re.escape(token)) for token in subject.split(".")))
    return lambda name: pattern.fullmatch(name) is not None


def read_events(
    archive: Archive, part: ArchiveFile, position: int, until: int, unread: frozenset[str] = frozenset()
) -> list[list[Recorded]]:
    """Return the events of one file after one position up to another, in batches.

    Events of the types ``unread`` are left out, except the last of each batch.

    Raises:
        ArchiveError: the file is missing, or its bytes are not those that the manifest names.
    """
    from ledger.archive.parquet import read_batches

    try:
        batches = read_batches(_bytes_of(archive, part), unread)
        found = [[event for event in batch if position < event.position <= until] for batch in batches]
    except OSError as error:
        raise ArchiveError(f"the archive's file cannot be read: {error}", part.first, part.file) from error
    return [batch for batch in found if batch]


def _bytes_of(archive: Archive, part: ArchiveFile) -> bytes:
    try:
        data = archive.path_of(part).read_bytes()
    except OSError as error:
        raise ArchiveError(f"the archive's file cannot be read: {error}", part.first, part.file) from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ArchiveError("the archive's file was changed", part.first, part.file)
    return data


class ArchivedHistory:
    """The events of an archive, each file compared with its manifest as a whole and with the log at its last event.

    An archive without these events, without the library that reads it, or damaged yields fewer events or none: then
    the reader goes on in the log. So it does at an event that the log had lost before it was archived.
    """

    def __init__(self, archive: Archive, log: Log) -> None:
        self._archive, self._log = archive, log

    def end(self) -> int:
        """Return the last archived position; 0 where the archive is empty or cannot be read."""
        try:
            return self._archive.last_position
        except (ValueError, OSError):
            return 0

    async def batches(
        self, position: int, until: int, unread: frozenset[str] = frozenset()
    ) -> AsyncIterator[list[Recorded]]:
        """Yield events after one position up to another, oldest first, and end early where the archive ends.

        Events of the types ``unread`` are left out, except the last of each batch.
        """
        while (part := self._part_after(position)) is not None and position < until:
            try:
                batches = await asyncio.to_thread(read_events, self._archive, part, position, until, unread)
                if batches:
                    await self._compare(batches[-1][-1])
            except (ArchiveError, MissingExtraError) as error:
                if part == self._part_after(position):  # else it has just been replaced by a longer one
                    _log.warning("the log is read instead of the archive: %s", error)
                    return
                continue
            for batch in batches:
                lost = next((at for at, event in enumerate(batch) if event.subject == GAP_SUBJECT), None)
                if batch[:lost]:
                    yield batch[:lost]
                if lost is not None:
                    return
            position = part.last

    def _part_after(self, position: int) -> ArchiveFile | None:
        """Return the file with the event after a position."""
        return next((part for part in self._archive.parts() if part.first <= position + 1 <= part.last), None)

    async def _compare(self, last: Recorded) -> None:
        """Compare an archived event with the log.

        Raises:
            ArchiveError: they differ, as in the archive of another ledger.
        """
        found = await self._log.at(last.position)
        if last.subject != GAP_SUBJECT and (found is None or digest_of(found.data) != digest_of(last.data)):
            raise ArchiveError("the archive's event is not that of the log", last.position)
