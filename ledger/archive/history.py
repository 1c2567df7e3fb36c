"""The archive as the fast source of old events, for readers that are far behind the log."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING

from ledger.archive.event_archive import ArchiveError
from ledger.errors import MissingExtraError
from ledger.store.log import digest_of
from ledger.transparency.sealer import GAP_SUBJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ledger.archive.event_archive import Archive, ArchiveFile
    from ledger.store.log import Log, Recorded

_log = logging.getLogger(__name__)


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
                batches = await asyncio.to_thread(self._read, part, position, until, unread)
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

    def _read(self, part: ArchiveFile, position: int, until: int, unread: frozenset[str]) -> list[list[Recorded]]:
        """Return the wanted events of one file, in batches.

        Raises:
            ArchiveError: the file is missing, or its bytes are not those that the manifest names.
            MissingExtraError: the library that reads it is not installed.
        """
        from ledger.archive.parquet import read_batches

        try:
            data = self._archive.path_of(part).read_bytes()
            if hashlib.sha256(data).hexdigest() != part.sha256:
                raise ArchiveError("the archive's file was changed", part.first, part.file)
            batches = read_batches(data, unread)
            found = [[event for event in batch if position < event.position <= until] for batch in batches]
        except OSError as error:
            raise ArchiveError(f"the archive's file cannot be read: {error}", part.first, part.file) from error
        return [batch for batch in found if batch]

    async def _compare(self, last: Recorded) -> None:
        """Compare an archived event with the log.

        Raises:
            ArchiveError: they differ, as in the archive of another ledger.
        """
        found = await self._log.at(last.position)
        if last.subject != GAP_SUBJECT and (found is None or digest_of(found.data) != digest_of(last.data)):
            raise ArchiveError("the archive's event is not that of the log", last.position)
