"""Reading and renewing the seal from a command, beside a running `up` or alone."""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from consumers.seal.archive_service import archive_of
from consumers.seal.service import LOCK, seal_log
from ledger.errors import LedgerError, LostEventsError, UnavailableError
from ledger.store.streams import js_api
from ledger.store.subscription import Follower, ReadCursor
from ledger.transparency.event_differences import Wrong
from ledger.transparency.seal_record import SealRecord, SealTrace
from ledger.transparency.sealer import SealError, check_positions, seal_folder
from ledger.transparency.signed_notes import NoteError
from ledger.transparency.tiles import MissingTileError
from ledger.transparency.verification import Verification
from projections.engine.storage import claim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from app.runtime.session import Session
    from ledger.transparency.sealer import SealFolder
    from ledger.transparency.signed_notes import Checkpoint, Verifier

VERIFY_STATE = "verify.json"
_PATIENCE_SECONDS = 60.0
_SAVE_EVERY = 100_000
_SEALED_SOON_SECONDS = 10.0
_LOOKED_AT_AGAIN = 200


async def seal_to_the_end(session: Session) -> None:
    """Seal what is in the log now, or wait until whoever runs the seal has.

    Raises:
        SealError: the log is not what was sealed, or the seal that was begun is not here.
        NoteError: the key or a checkpoint cannot be read.
        UnavailableError: whoever runs the seal does not get there in time.

    """
    folder, end = seal_folder(session.data_dir), await session.log.last_position()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with claim(session.data_dir, LOCK) as ours:
            if ours:
                await seal_log(await session.connection("seal"), session.log, folder, until=end)
                return
        newest = folder.checkpoint()
        if newest is not None and newest.size >= end:
            return
        if time.monotonic() > deadline:
            message = f"the seal does not reach position {end}: see what `resolution-ledger run seal` says"
            raise UnavailableError(message)
        await asyncio.sleep(0.05)


async def check_sealed_end(session: Session) -> None:
    """Check that the log still shows the newest event that was sealed, where its tile can be read.

    Raises:
        SealError: it does not.

    """
    folder = seal_folder(session.data_dir)
    with suppress(NoteError, MissingTileError, OSError):  # the role that seals names what is wrong with the seal
        if (newest := folder.checkpoint()) is not None:
            await check_positions(session.log, folder.tiles(newest.size), [newest.size])


async def begin_anew(session: Session, reason: str) -> tuple[Verifier, Path | None]:
    """Begin another seal, with another key, in the place of one that is lost or damaged for good.

    What is left of the old one is moved beside it. Returns the new verifier key and where the old folder is.

    Raises:
        UnavailableError: whoever runs the seal does not leave it for a moment.

    """
    folder, record = seal_folder(session.data_dir), await SealRecord.open(session.client)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with claim(session.data_dir, LOCK) as ours:
            if ours:
                moved = None
                if os.path.lexists(folder.folder):
                    moved = folder.folder.with_name(f"seal-until-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
                    folder.folder.rename(moved)
                signer = folder.begin()
                end = await session.log.last_position()
                await record.begin(signer.verifier, end, reason)
                await seal_log(await session.connection("seal"), session.log, folder, until=end)
                return signer.verifier, moved
        await asyncio.sleep(0.05)
    raise UnavailableError("a seal is running: stop `resolution-ledger run seal` (or `up`) first")


async def wait_for_the_seal(session: Session) -> None:
    """Wait until the role that seals has sealed what is in the log now. Where no role does, nothing is waited for.

    For commands that check the evidence, and must not make any.
    """
    folder, end = seal_folder(session.data_dir), await session.log.last_position()
    deadline = time.monotonic() + _SEALED_SOON_SECONDS
    while time.monotonic() < deadline:
        with claim(session.data_dir, LOCK) as ours:
            if ours:
                return
        try:
            newest = folder.checkpoint()
        except (OSError, NoteError):
            return
        if newest is not None and newest.size >= end:
            return
        await asyncio.sleep(0.05)


async def verification(
    session: Session,
    brought: Sequence[Checkpoint],
    trusted: Sequence[Verifier],
    damaged: Sequence[Wrong] = (),
    *,
    resume: bool = False,
    progressed: Callable[[int, int], None],
) -> dict[str, Any]:
    """Hold the whole log against its seal; the document that `audit verify --json` prints. Only reads the evidence.

    ``damaged`` is what was found wrong with what was brought.
    """
    folder, state = seal_folder(session.data_dir), session.data_dir / VERIFY_STATE
    kept = SealTrace()
    try:
        kept = await (await SealRecord.open(session.client)).read()
    except NoteError as error:
        damaged = [*damaged, Wrong("evidence damaged", 1, 1, str(error))]
    info = await js_api(session.client, f"STREAM.INFO.{session.log.stream}")
    log_id = str(info.get("created"))
    archived = None
    try:
        archived = archive_of(session.data_dir).checkpoint()
    except LedgerError as error:
        damaged = [*damaged, Wrong("evidence damaged", 1, 1, str(error))]
    work = Verification(folder, brought, trusted, kept, archived)
    if resume:
        work.load(state, log_id)
        if not await _still_so(session, folder, work):
            work = Verification(folder, brought, trusted, kept, archived)
    end = await session.log.last_position()  # read behind the checkpoint, which may move on meanwhile
    follower = Follower(await session.connection("verify"), session.log, "verify", ReadCursor(work.position), gaps=True)
    saved = resumed_from = work.position
    with suppress(LostEventsError):  # the stream ends early: what is missing is among the findings
        async for batch in follower.batches(until=end):
            work.take(batch)
            if work.position - saved >= _SAVE_EVERY:
                work.save(state, log_id)
                saved = work.position
            progressed(work.last, end)
            await asyncio.sleep(0)
    findings = [*damaged, *work.findings(end)]
    with suppress(OSError):
        state.unlink()
    newest = work.newest
    return {
        "size": work.size,
        "root": newest.root.hex() if newest else "",
        "last_position": end,
        "resumed_from": resumed_from,
        "not_sealed": max(0, end - work.size),
        "gaps": work.gaps,
        "brought": [one.size for one in brought],
        "signed_by": [verifier.text() for verifier in newest.signed_by(work.trusts)] if newest else [],
        "findings": [wrong.wire() for wrong in findings],
    }


async def _still_so(session: Session, folder: SealFolder, work: Verification) -> bool:
    """Check again, by lot, a few of the positions that an earlier run has checked."""
    count = min(_LOOKED_AT_AGAIN, work.position)
    positions = sorted(random.sample(range(1, work.position + 1), count))
    try:
        await check_positions(session.log, folder.tiles(work.size), positions)
    except (SealError, MissingTileError):
        return False
    return True
