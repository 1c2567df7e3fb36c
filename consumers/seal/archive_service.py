"""The role `archive`: copies sealed events to Parquet files, some seconds behind the seal."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from config import topology
from ledger.archive.event_archive import Archive, gap_marker
from ledger.background_service import RoleService, restarting
from ledger.errors import LedgerError, UnavailableError
from ledger.store.cloudevents import stored_decoder
from ledger.store.role_status import Heartbeat, ReaderStatus, RoleStatus
from ledger.store.subscription import Follower, ReadCursor
from ledger.transparency.merkle import ProofError
from ledger.transparency.seal_mirror import SEAL_MIRROR, SealMirror
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
    from ledger.transparency.signed_notes import Checkpoint

_log = logging.getLogger(__name__)
LOCK = "archive"
_EVERY_SECONDS = 10.0
_ADDED_EVENTS, _ADDED_BYTES = 16_384, 16 << 20
"""The size of the parts in which events are added: while a part is written, it is in memory several times."""
_SHOWN = 3


def archive_of(data_dir: Path) -> Archive:
    """Return the archive of a data directory."""
    return Archive(data_dir / "archive")


async def archive_log(
    client: LedgerClient,
    log: Log,
    archive: Archive,
    seal: SealFolder,
    progressed: Callable[[int, int], None] = lambda _done, _of: None,
    mirror: SealMirror | None = None,
) -> int:
    """Copy the sealed events that are not archived yet; return the last position of the archive.

    ``mirror``: the one that ``seal`` is the folder of, where another machine seals.

    Raises:
        SealError: the log differs from the seal.
        ProofError: the other machine's tiles differ from its checkpoint, or that one from the archive's.
        OSError: a file cannot be written.

    """
    newest, begun = seal.checkpoint(), archive.last_position
    if newest is None or newest.size <= begun:
        return begun
    from ledger.archive.parquet import return_freed_memory

    return_freed_memory()
    if mirror is not None:
        await _require_growth(archive, newest, mirror)
    tiles = seal.tiles(newest.size)
    verifiers = (seal.folder / "verifiers").read_text(encoding="utf-8")
    follower = Follower(client, log, "archive", ReadCursor(begun), gaps=True)
    unwritten: list[Recorded] = []
    size = 0
    recorded = await _recorded_at(log, begun)
    position = begun
    writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writing.set_result(None)
    async for batch in follower.batches(until=newest.size):
        for event in batch:
            while position + 1 < event.position:
                position += 1
                unwritten.append(gap_marker(position, recorded))
            position = event.position
            unwritten.append(event)
        recorded = stored_decoder.decode(batch[-1].data).recordedtime
        size += sum([len(event.data) for event in batch])
        if len(unwritten) >= _ADDED_EVENTS or size >= _ADDED_BYTES or position == newest.size:
            await writing
            if mirror is not None:
                tiles = await mirror.checked_tiles(newest, unwritten[0].position, position)
            writing = asyncio.ensure_future(  # while the next events are read
                asyncio.to_thread(archive.add, unwritten, newest.note, verifiers, tiles)
            )
            unwritten, size = [], 0
        progressed(position, newest.size)
    await writing
    return position


async def _require_growth(archive: Archive, newest: Checkpoint, mirror: SealMirror) -> None:
    """Raise ProofError unless the archive's checkpoint is of the beginning of the newest one's log."""
    try:
        kept = archive.checkpoint()
    except NoteError:  # `admin scrub` reports it, and the next file brings a new one
        return
    if kept is None or kept.origin != newest.origin:
        return
    if kept.size > newest.size:
        raise ProofError(f"the seal has {newest.size:,} events, fewer than the archive's checkpoint ({kept.size:,})")
    tiles = await mirror.checked_tiles(newest, kept.size, kept.size)
    if await mirror.read(lambda _seal: tiles.root_at(kept.size)) != kept.root:
        raise ProofError(f"the seal is not of the log that the archive's checkpoint of {kept.size:,} events is of")


async def _recorded_at(log: Log, position: int) -> str:
    found = await log.at(position) if position else None
    return stored_decoder.decode(found.data).recordedtime if found else "1970-01-01T00:00:00Z"


def _beat(pulse: Heartbeat, done: int, _of: int) -> None:
    pulse.beat(done)


class ArchiveService(RoleService):
    """The archive as a service; it fails where the log differs from the seal."""

    def __init__(self, server: NatsServer, log: Log, data_dir: Path, *, mirrors: bool = False) -> None:
        """``mirrors``: where the data directory has no seal, another machine seals."""
        super().__init__("archive")
        self._mirrors = mirrors
        self._server = server
        self._log = log
        self._data_dir = data_dir
        self._pulse = Heartbeat("the archive")

    def status(self) -> RoleStatus:
        """Return the status of the archive; without details where another process archives in this folder."""
        if not self._pulse.active:
            return RoleStatus(role="archive", is_working=False)
        archive = archive_of(self._data_dir)
        lost = [part.file for part in archive.parts() if not (archive.folder / part.file).exists()]
        reading = ReaderStatus("the seal", archive.last_position, self._pulse.still_seconds)
        return RoleStatus(
            role="archive",
            is_working=True,
            loops=(self._pulse.loop(),),
            readings=(reading,),
            absent=tuple(f"archive/{file}" for file in lost[:_SHOWN]),
        )

    async def start(self) -> None:
        """Start to copy, unless another process archives in this folder.

        Raises:
            MissingExtraError: the library that writes Parquet files is not installed.

        """
        import ledger.archive.parquet  # noqa: F401 - reports a missing extra at once

        reader = await self.connection(self._server, "archive")
        self.spawn(restarting("the archive", partial(self._run, reader)))

    async def _run(self, reader: LedgerClient) -> None:
        while True:
            with claim(self._data_dir, LOCK) as ours:
                self._pulse.active = ours
                if ours:
                    archive, seal, mirror = archive_of(self._data_dir), seal_folder(self._data_dir), None
                    try:
                        if self._mirrors and not seal.is_begun:
                            mirror = SealMirror(self._log, topology.SEAL_SUBJECT, self._data_dir / SEAL_MIRROR)
                            seal = await mirror.refresh()
                        beat = partial(_beat, self._pulse)
                        await archive_log(reader, self._log, archive, seal, beat, mirror)
                        self._pulse.beat(archive.last_position)
                    except (UnavailableError, OSError, MissingTileError, NoteError, ProofError) as error:
                        if isinstance(error, MissingTileError | NoteError | ProofError) and mirror is None:
                            raise LedgerError(f"the archive cannot read the seal: {error}") from error
                        # The server does not answer, the disk is full, or another machine's seal is absent or wrong.
                        _log.warning("the archive waits: %s", error)
                        self._pulse.wait(str(error))
            await asyncio.sleep(_EVERY_SECONDS)
