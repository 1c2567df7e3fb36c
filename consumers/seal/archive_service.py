"""The runner of the archive: copies what is sealed to Parquet files, some seconds behind the seal."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from consumers.runtime.background_service import fails_with, keep_going
from ledger.archive.event_archive import FILE_EVENTS, Archive, gap_marker
from ledger.errors import LedgerError, UnavailableError
from ledger.nats.client import connect
from ledger.store.cloudevents import stored_decoder
from ledger.store.role_status import Pulse, Reading, RoleStatus
from ledger.store.subscription import Follower, ReadCursor
from ledger.transparency.sealer import seal_folder
from ledger.transparency.signed_notes import NoteError
from ledger.transparency.tiles import MissingTileError
from projections.engine.storage import claim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.log import Log, Recorded
    from ledger.transparency.sealer import SealFolder

_log = logging.getLogger(__name__)
LOCK = "archive"
_EVERY_SECONDS = 10.0
_SHOWN = 3


def archive_of(data_dir: Path) -> Archive:
    """The archive of a data directory."""
    return Archive(data_dir / "archive")


async def archive_log(
    client: LedgerClient,
    log: Log,
    archive: Archive,
    seal: SealFolder,
    progressed: Callable[[int, int], None] = lambda _done, _of: None,
) -> int:
    """Copy what is sealed and not archived yet; returns up to where the archive goes then.

    Raises:
        SealError: the log is not what was sealed.
        OSError: a file cannot be written.

    """
    newest, begun = seal.checkpoint(), archive.last_position
    if newest is None or newest.size <= begun:
        return begun
    tiles = seal.tiles(newest.size)
    verifiers = (seal.folder / "verifiers").read_text(encoding="utf-8")
    follower = Follower(client, log, "archive", ReadCursor(begun), gaps=True)
    waiting: list[Recorded] = []
    recorded = await _recorded_at(log, begun)
    position = begun
    writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writing.set_result(None)
    async for batch in follower.batches(until=newest.size):
        for event in batch:
            while position + 1 < event.position:
                position += 1
                waiting.append(gap_marker(position, recorded))
            position = event.position
            waiting.append(event)
        recorded = stored_decoder.decode(batch[-1].data).recordedtime
        whole = len(waiting) if position == newest.size else len(waiting) - position % FILE_EVENTS
        if whole > 0:
            await writing
            writing = asyncio.ensure_future(
                asyncio.to_thread(archive.add, waiting[:whole], newest.note, verifiers, tiles)  # while more is read
            )
            waiting = waiting[whole:]
        progressed(position, newest.size)
    await writing
    return position


async def _recorded_at(log: Log, position: int) -> str:
    found = await log.at(position) if position else None
    return stored_decoder.decode(found.data).recordedtime if found else "1970-01-01T00:00:00Z"


class ArchiveService:
    """Start it, and wait for ``failed``: the log is not what was sealed."""

    def __init__(self, server: NatsServer, log: Log, data_dir: Path) -> None:
        self._server = server
        self._log = log
        self._data_dir = data_dir
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._reader: LedgerClient | None = None
        self._pulse = Pulse("the archive")

    def status(self) -> RoleStatus:
        """Return how the archive is; where another process archives in this folder, only that this one stands by."""
        if not self._pulse.active:
            return RoleStatus(role="archive")
        archive = archive_of(self._data_dir)
        lost = [part.file for part in archive.parts() if not (archive.folder / part.file).exists()]
        reading = Reading("the seal", archive.last_position, self._pulse.still_seconds)
        return RoleStatus(
            role="archive",
            loops=(self._pulse.loop(),),
            readings=(reading,),
            absent=tuple(f"archive/{file}" for file in lost[:_SHOWN]),
        )

    async def start(self) -> None:
        """Begin to copy, where no other process does.

        Raises:
            MissingExtraError: what writes Parquet files is not installed.

        """
        import ledger.archive.parquet  # noqa: F401 - so that a missing extra is told at once

        self._reader = await connect(self._server, "archive")
        self._task = asyncio.create_task(keep_going("the archive", self._run))
        self._task.add_done_callback(fails_with(self.failed, "archive"))

    async def stop(self) -> None:
        """Leave; the archive goes on where it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._reader is not None:
            await self._reader.close()

    async def _run(self) -> None:
        assert self._reader is not None
        while True:
            with claim(self._data_dir, LOCK) as ours:
                self._pulse.active = ours
                if ours:
                    try:
                        archive, seal = archive_of(self._data_dir), seal_folder(self._data_dir)
                        await archive_log(
                            self._reader, self._log, archive, seal, lambda done, _of: self._pulse.beat(done)
                        )
                        self._pulse.beat(archive.last_position)
                    except (UnavailableError, OSError) as error:  # the server is away, the disk is full
                        _log.warning("the archive waits: %s", error)
                        self._pulse.wait(str(error))
                    except (MissingTileError, NoteError) as error:
                        raise LedgerError(f"the archive cannot read the seal: {error}") from error
            await asyncio.sleep(_EVERY_SECONDS)
