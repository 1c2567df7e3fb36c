"""Commands' work on the archive: extend, verify, export and restore."""

from __future__ import annotations

import asyncio
import os
from itertools import chain
from typing import TYPE_CHECKING

from app.runtime.archive_chunks import ChunkShare, verify_chunks
from app.runtime.seal import seal_to_the_end
from config import topology
from consumers.seal.archive_service import LOCK, archive_log, archive_of
from ledger.archive.event_archive import Archive, gap_marker
from ledger.archive.verification import CHUNK, event_leaf_hash
from ledger.errors import LedgerError
from ledger.store import snapshots
from ledger.store.atomic_batches import in_batches
from ledger.store.cloudevents import stored_decoder
from ledger.store.log import Draft, Log, Recorded
from ledger.store.subscription import Follower, ReadCursor
from ledger.transparency.event_differences import SealFinding
from ledger.transparency.merkle import root_of
from ledger.transparency.seal_record import SealRecord
from ledger.transparency.seal_sample import checked_entries
from ledger.transparency.sealer import SealFolder, decode_entry, seal_folder
from ledger.transparency.signed_notes import NoteError, Verifier, read_checkpoint
from ledger.transparency.tiles import WIDTH
from ledger.transparency.verification import CompactRange
from projections.engine.storage import claim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from app.runtime.session import Session
    from config.settings import Settings
    from domain.serialization import JsonObject
    from ledger.transparency.signed_notes import Checkpoint

type Progressed = Callable[[int, int], None]


async def archive_to_the_end(session: Session, progressed: Progressed) -> int:
    """Seal and archive the log up to its present end; return the archive's last position."""
    await seal_to_the_end(session)
    archive, seal = archive_of(session.data_dir), seal_folder(session.data_dir)
    while True:
        with claim(session.data_dir, LOCK) as claimed:
            if claimed:
                reader = await session.connection("archive")
                return await archive_log(reader, session.log, archive, seal, progressed)
        await asyncio.sleep(0.1)


async def verify_archive(
    folder: Path,
    seal: SealFolder,
    trusted: Sequence[Verifier],
    progressed: Progressed,
    settings: Settings,
    processes: int | None = None,
) -> list[SealFinding]:
    """Compare the archive with the seal; return differences by position. ``verify_chunks`` says in which processes.

    Raises:
        UnavailableError: a process ended early.
    """
    archive, newest = Archive(folder), seal.checkpoint()
    found = [
        SealFinding("archive damaged", error.position, error.position, str(error)) for error in archive.file_errors()
    ]
    if newest is None or found:
        return found
    if not newest.signed_by(seal.trusted(trusted)):
        found.append(SealFinding("checkpoint forged", 1, newest.size, "the newest checkpoint has no trusted signature"))
    size = min(newest.size, archive.last_position)
    share = ChunkShare(str(folder), str(seal.folder), newest.size, size)
    reports = await verify_chunks(share, settings, lambda done: progressed(min(done * CHUNK, size), size), processes)
    for one in reports:
        if one.damage:
            return [*found, SealFinding("archive damaged", one.damaged_at, one.damaged_at, one.damage)]
    wrong = chain.from_iterable(one.wrong for one in reports)
    found += [SealFinding("archive edited", one, one, "the archive differs from the seal") for one in wrong]
    root = root_of([one.root for one in reports if one.root])
    if not found and root != (seal.tiles(newest.size).range_hash(0, size) if size else root_of([])):
        found.append(SealFinding("archive edited", 1, size, "the archive's root is not the seal's"))
    return found


async def export(session: Session, file: Path, first: int, last: int, progressed: Progressed) -> int:
    """Write positions ``first`` to ``last`` into one Parquet file; return the number of events."""
    from ledger.archive.parquet import ParquetWriter

    before = await session.log.at(first - 1) if first > 1 else None
    follower = Follower(
        await session.connection("export"),
        session.log,
        "export",
        ReadCursor(before.position if before else first - 1),
        gaps=True,
    )
    written = 0
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with ParquetWriter(temporary) as writer:
            waiting: list[Recorded] = []
            async for batch in follower.batches(until=last):
                waiting += batch
                if len(waiting) >= CHUNK:
                    writer.add(waiting)
                    written += len(waiting)
                    waiting = []
                progressed(batch[-1].position, last)
            writer.add(waiting)
            written += len(waiting)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return written


async def restore(session: Session, folder: Path, trusted: Sequence[Verifier], progressed: Progressed) -> JsonObject:
    """Fill an empty log from an archive, and prove that it equals the sealed log.

    Every event keeps its position. An event that was lost before it was sealed is a marker. The archive follows the
    seal; where the new data directory has the seal, the events between their ends come from it.

    Raises:
        LedgerError: the log is not empty, the archive or the seal is damaged, or they differ from the sealed log.

    """
    archive = Archive(folder)
    if await session.log.last_position():
        raise LedgerError("the log has events already: restore into an empty data directory (--data-dir)")
    _check_files(archive)
    try:
        checkpoint = read_checkpoint((folder / "checkpoint").read_text(encoding="utf-8"))
        known = [Verifier.read(line) for line in (folder / "verifiers").read_text(encoding="utf-8").splitlines()]
    except (OSError, NoteError) as error:
        raise LedgerError(f"{folder}: {error}") from error
    if not checkpoint.signed_by(trusted or known):
        raise LedgerError("the archive's checkpoint is signed by no key that you trust")
    _check_root(archive, checkpoint.size, checkpoint.root)
    newest = _newer_seal(session, checkpoint, trusted)
    await snapshots.remove_all(session.client)  # copies of a state that is ahead of the restored log
    log = await Log.unstamped(session.client, topology.LEDGER)
    expected, end = 1, (newest or checkpoint).size
    sealed = _sealed_events(session, checkpoint.size, newest) if newest is not None else ()
    for batch in chain(archive.batches(last=checkpoint.size), sealed):
        for some in in_batches(batch, lambda event: len(event.data)):
            first = await log.append([Draft(event.subject, event.data) for event in some])
            if first != some[0].position or some[0].position != expected:
                raise LedgerError(f"position {some[0].position} became {first}: another process writes to this log")
            expected = some[-1].position + 1
        progressed(expected - 1, end)
    record = await SealRecord.open(session.client)
    if not (await record.read()).begun:  # a record of the seal, so that a missing seal folder is noticed
        await record.begin(known[0], 0)
        await record.keep(checkpoint)
    return {"restored": expected - 1, "root": (newest or checkpoint).root.hex(), "size": end}


def _newer_seal(session: Session, archived: Checkpoint, trusted: Sequence[Verifier]) -> Checkpoint | None:
    """Return the checkpoint of the data directory's seal if it is newer than the archive's, otherwise ``None``.

    Raises:
        LedgerError: no trusted key signed it, or its tiles do not have its root.
    """
    seal = seal_folder(session.data_dir)
    newest = seal.checkpoint()
    if newest is None or newest.size <= archived.size:
        return None
    if not newest.signed_by(seal.trusted(trusted)):
        raise LedgerError(f"{seal.folder}: its checkpoint is signed by no key that you trust")
    if seal.tiles(newest.size).range_hash(0, newest.size) != newest.root:
        raise LedgerError(f"{seal.folder}: its tiles are not what was signed")
    return newest


def _sealed_events(session: Session, archived: int, newest: Checkpoint) -> Iterator[list[Recorded]]:
    """Yield the events of the seal's bundles behind the end of the archive.

    Raises:
        LedgerError: a bundle is missing or was changed.
    """
    tiles, recorded = seal_folder(session.data_dir).tiles(newest.size), "1970-01-01T00:00:00.000000Z"
    for index in range(archived // WIDTH, -(-newest.size // WIDTH)):
        events: list[Recorded] = []
        for entry in map(decode_entry, checked_entries(tiles, index)):
            event = gap_marker(entry.position, recorded) if entry.is_gap else Recorded(*entry)
            recorded = stored_decoder.decode(event.data).recordedtime
            if event.position > archived:
                events.append(event)
        yield events


def _check_files(archive: Archive) -> None:
    """Raise LedgerError unless the archive holds files, and all as they were written."""
    try:
        parts = archive.parts()
    except (OSError, ValueError) as error:
        raise LedgerError(f"{archive.folder}: its manifest is damaged: {error}") from error
    if not parts:
        raise LedgerError(f"{archive.folder} holds no archive: name the folder that has manifest.jsonl")
    for fault in archive.file_errors():
        raise fault


def _check_root(archive: Archive, size: int, root: bytes) -> None:
    edge = CompactRange()
    waiting: list[bytes] = []
    for batch in archive.batches(last=size):
        waiting += [event_leaf_hash(event) for event in batch]
        while len(waiting) >= 256:  # noqa: PLR2004 - a tile
            edge.add_tile(waiting[:256])
            waiting = waiting[256:]
    edge.add_tile(waiting)
    if edge.size != size or edge.root() != root:
        raise LedgerError("the archive is not what was sealed: `resolution-ledger admin scrub` shows the difference")
