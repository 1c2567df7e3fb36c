"""Checks of `admin doctor`: the seal, the archive, and the unsealed end of the log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.health.check import Check, archive_repair
from consumers.seal.archive_service import archive_of
from ledger.errors import LedgerError
from ledger.transparency.seal_record import SealRecord
from ledger.transparency.seal_sample import SealSample, check_sample
from ledger.transparency.sealer import RESTORE_ADVICE, Sealer, SealError, seal_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.runtime.session import Session
    from ledger.archive.event_archive import Archive
    from ledger.transparency.seal_record import SealTrace
    from ledger.transparency.signed_notes import Checkpoint

_NEWEST_EVENTS = 1000
_HASHED_BYTES = 256 << 20
"""Files of the archive are hashed up to about this size in all; `admin scrub` hashes each."""


async def seal(session: Session) -> AsyncIterator[Check]:
    """Check the seal's files, a sample of its tiles against the log, and the newest unsealed events."""
    archived, newest, end = 0, None, 0
    archive, damaged = archive_of(session.data_dir), ""
    try:  # in this order: while this runs, the archive follows the seal, and the seal follows the log
        archived = archive.last_position
        archive.checkpoint()
        await asyncio.to_thread(_check_archive, archive)
    except (LedgerError, OSError, ValueError) as error:
        damaged = f"{archive.folder} is damaged ({error}): {archive_repair(session)}"
    if archived < session.log.retired.until and not damaged:
        damaged = f"{archive.folder} ends at position {archived}: {archive_repair(session)}"
    try:
        kept = await (
            await SealRecord.open(session.client)
        ).read()  # before the folder, which a running seal writes first
        newest = seal_folder(session.data_dir).checkpoint()
        end = await session.log.last_position()
        text = await _seal(session, kept, newest, archived, end)
    except (LedgerError, OSError, ValueError) as error:
        yield Check("seal", str(error), ok=False)
    else:
        yield Check("seal", text)
    yield Check("archive", damaged or f"{archived} of {end} positions", not damaged)
    if unreadable := await _unreadable(session, newest.size if newest is not None else 0):
        yield Check("log", unreadable, ok=False)


def _check_archive(archive: Archive) -> None:
    """Look for each file of the archive, and at the bytes of the newest.

    Raises:
        ArchiveError: one is missing or damaged.

    """
    before = archive.parts()
    wrong = next(archive.file_errors(bytes_at_most=_HASHED_BYTES), None)
    if wrong is not None and archive.parts() != before:  # the archive's role replaced the newest file meanwhile
        wrong = next(archive.file_errors(bytes_at_most=_HASHED_BYTES), None)
    if wrong is not None:
        raise wrong


async def _seal(session: Session, kept: SealTrace, newest: Checkpoint | None, archived: int, end: int) -> str:
    """Return the size of the seal and of the checked sample.

    Raises:
        LedgerError: a part of the seal is missing or does not fit the others.

    """
    folder = seal_folder(session.data_dir)
    if newest is None and (kept.checkpoint or archived or (kept.begun and not folder.is_begun)):
        raise SealError(f"the seal of this ledger is not at {folder.folder}", archived, RESTORE_ADVICE)
    folder.trusted()  # reads the verifier keys and the handovers
    if kept.damage:
        raise SealError(kept.damage, 0, "`resolution-ledger audit verify` compares the seal with the log")
    if newest is None:
        return f"0 of {end} positions"
    Sealer(folder, kept.checkpoint)  # verifies that key, checkpoints and the last tiles fit
    if end < newest.size:
        raise SealError(f"the log ends at position {end}, and {newest.size} positions were sealed", end + 1)
    if archived > newest.size:
        raise SealError(f"the archive goes to position {archived}, and the seal only to {newest.size}", newest.size + 1)
    return f"{newest.size} of {end} positions, {_looked_at(await check_sample(session.log, folder.tiles(newest.size)))}"


def _looked_at(sample: SealSample) -> str:
    return (
        f"checked {sample.tiles} of {sample.of_tiles} tiles and {sample.events} events of the log; `audit verify` "
        "checks all"
    )


async def _unreadable(session: Session, sealed: int) -> str:
    """Return a sentence about unsealed events that cannot be read; empty if all can be read."""
    end = await session.log.last_position()
    positions = range(max(sealed, end - _NEWEST_EVENTS) + 1, end + 1)
    events = await asyncio.gather(*map(session.log.at, positions))
    lost = [position for position, event in zip(positions, events, strict=True) if event is None]
    if not lost:
        return ""
    return (
        f"{len(lost)} events from position {lost[0]} on are not sealed yet and cannot be read: the server's folder is "
        "damaged. Stop all writers, and run `resolution-ledger audit verify`"
    )
