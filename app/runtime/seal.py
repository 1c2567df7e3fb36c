"""Commands' work on the seal, beside a running `up` or without one."""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from config import topology
from consumers.seal.archive_service import archive_of
from consumers.seal.service import LOCK, seal_log
from ledger.errors import LedgerError, LostEventsError, UnavailableError
from ledger.store.streams import StreamRemadeError, js_api
from ledger.store.subscription import Follower, ReadCursor
from ledger.transparency.event_differences import SealFinding
from ledger.transparency.seal_copy import SealCopy, SealCopyError
from ledger.transparency.seal_mirror import SEAL_MIRROR, SealMirror, read_seal
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
_TIMEOUT_SECONDS = 60.0
_SAVE_EVERY = 100_000
_SEALED_SOON_SECONDS = 10.0
_SAMPLE = 200


async def seal_to_the_end(session: Session) -> None:
    """Seal the log up to its present end, or wait until the role that seals has.

    Raises:
        SealError: the log differs from the seal, or a seal that was begun is missing.
        NoteError: the key or a checkpoint cannot be read.
        UnavailableError: the role that seals does not get there in time.

    """
    folder, end = seal_folder(session.data_dir), await session.log.last_position()
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        with claim(session.data_dir, LOCK) as claimed:
            if claimed:
                secret = session.settings.seal_secret
                await seal_log(await session.connection("seal"), session.log, folder, until=end, secret=secret)
                return
        newest = folder.checkpoint()
        if newest is not None and newest.size >= end:
            return
        if time.monotonic() > deadline:
            message = f"the seal does not reach position {end}: see the output of `resolution-ledger run seal`"
            raise UnavailableError(message)
        await asyncio.sleep(0.05)


async def from_seal[T](session: Session, make: Callable[[SealFolder], T]) -> T:
    """Return a value that ``make`` reads from the seal, which reaches the log's present end.

    It is that of this data directory or, where another machine seals, a mirror of that one.

    Raises:
        UnavailableError: the machine that seals does not answer, or does not get there in time.
        AssertionError, LedgerError, ValueError: what ``make`` raises where the seal does not have what it needs.

    """
    folder, end = seal_folder(session.data_dir), await session.log.last_position()
    mirror = await _mirror_of(session)
    if mirror is None:
        await seal_to_the_end(session)
        return make(folder)
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while (newest := (await mirror.refresh()).checkpoint()) is None or newest.size < end:
        if time.monotonic() > deadline:
            raise UnavailableError(f"the seal does not reach position {end}: see the output of the role `seal`")
        await asyncio.sleep(0.1)
    return await read_seal(folder, mirror, make)


async def folder_to_read(session: Session) -> SealFolder:
    """Return the seal of this data directory or, where another machine seals, a mirror with its small files.

    Raises:
        UnavailableError: the machine that seals does not answer.

    """
    mirror = await _mirror_of(session)
    return seal_folder(session.data_dir) if mirror is None else await mirror.refresh()


async def _mirror_of(session: Session) -> SealMirror | None:
    """Return the mirror of another machine's seal; none where this one seals, or nothing is sealed yet."""
    if session.embedded:
        return None
    folder = seal_folder(session.data_dir)
    mirror = SealMirror(session.log, topology.SEAL_SUBJECT, session.data_dir / SEAL_MIRROR)
    if folder.is_begun:
        return None if await mirror.is_newest(folder) else mirror
    return mirror if (await (await SealRecord.open(session.client)).read()).begun else None


async def check_sealed_end(session: Session) -> None:
    """Check that the log still has the newest sealed event, if its tile can be read.

    Raises:
        SealError: the event is missing or has changed.

    """
    folder = seal_folder(session.data_dir)
    with suppress(NoteError, MissingTileError, OSError):  # the role that seals reports damage of the seal
        if (newest := folder.checkpoint()) is not None:
            await check_positions(session.log, folder.tiles(newest.size), [newest.size])


async def take_over(session: Session) -> int:
    """Go on with the seal here, with the key that the server keeps; return the last sealed position.

    The tiles are made again from the log, and nothing is signed before they reach the server's checkpoint.

    Raises:
        SealCopyError: there is no secret, no copy, or a seal here.
        SealError: the log differs from what was sealed.

    """
    secret = session.settings.seal_secret
    if not secret:
        raise SealCopyError("set RESOLUTION_LEDGER_SEAL_SECRET to the secret with which the seal's key was kept")
    folder, record = seal_folder(session.data_dir), await SealRecord.open(session.client)
    with claim(session.data_dir, LOCK) as claimed:
        if not claimed:
            raise UnavailableError("a seal is running here: stop `resolution-ledger run seal` (or `up`) first")
        await SealCopy(record.log, secret).take_over(folder)
        end = await session.log.last_position()
        await seal_log(await session.connection("seal"), session.log, folder, until=end, secret=secret)
    return end


async def begin_anew(session: Session, reason: str) -> tuple[Verifier, Path | None]:
    """Begin a new seal with a new key, in place of one that is lost or damaged for good.

    The rest of the old seal is moved beside it. Returns the new verifier key and the old folder's new path.

    Raises:
        UnavailableError: the role that seals keeps the seal locked.

    """
    folder, record = seal_folder(session.data_dir), await SealRecord.open(session.client)
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        with claim(session.data_dir, LOCK) as claimed:
            if claimed:
                moved = None
                if os.path.lexists(folder.folder):
                    moved = folder.folder.with_name(f"seal-until-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
                    folder.folder.rename(moved)
                signer = folder.begin()
                end = await session.log.last_position()
                secret = session.settings.seal_secret
                if secret:  # first, so that nobody takes over the old key
                    await SealCopy(record.log, secret).keep(folder, replaces=True)
                await record.begin(signer.verifier, end, reason)
                await seal_log(await session.connection("seal"), session.log, folder, until=end, secret=secret)
                return signer.verifier, moved
        await asyncio.sleep(0.05)
    raise UnavailableError("a seal is running: stop `resolution-ledger run seal` (or `up`) first")


async def wait_for_the_seal(session: Session) -> None:
    """Wait until the role that seals has reached the present end; return at once if no role seals.

    For commands that verify the evidence and must not create any.
    """
    folder, end = seal_folder(session.data_dir), await session.log.last_position()
    deadline = time.monotonic() + _SEALED_SOON_SECONDS
    while time.monotonic() < deadline:
        with claim(session.data_dir, LOCK) as claimed:
            if claimed:
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
    damaged: Sequence[SealFinding] = (),
    *,
    resume: bool = False,
    progressed: Callable[[int, int], None],
) -> dict[str, Any]:
    """Compare the whole log with its seal; return the document of `audit verify --json`.

    The evidence is only read. ``damaged`` lists faults of the checkpoints that the user brought.
    """
    folder, state = seal_folder(session.data_dir), session.data_dir / VERIFY_STATE
    kept = SealTrace()
    try:
        kept = await (await SealRecord.open(session.client)).read()
    except NoteError as error:
        damaged = [*damaged, SealFinding("evidence damaged", 1, 1, str(error))]
    info = await js_api(session.client, f"STREAM.INFO.{session.log.stream}")
    log_id = str(info.get("created"))
    archived = None
    try:
        archived = archive_of(session.data_dir).checkpoint()
    except LedgerError as error:
        damaged = [*damaged, SealFinding("evidence damaged", 1, 1, str(error))]
    work = Verification(folder, brought, trusted, kept, archived)
    if resume:
        work.load(state, log_id)
        if not await _sample_holds(session, folder, work):
            work = Verification(folder, brought, trusted, kept, archived)
    end = await session.log.last_position()  # read after the checkpoint, which may grow meanwhile
    follower = Follower(await session.connection("verify"), session.log, "verify", ReadCursor(work.position), gaps=True)
    saved = resumed_from = work.position
    try:
        async for batch in follower.batches(until=end):
            work.take(batch)
            if work.position - saved >= _SAVE_EVERY:
                work.save(state, log_id)
                saved = work.position
            progressed(work.last, end)
            await asyncio.sleep(0)
    except StreamRemadeError:
        raise
    except LostEventsError:
        pass  # the stream ends early: missing events are findings
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
        "signed_by": [verifier.text() for verifier in newest.signed_by(work.trusted_keys)] if newest else [],
        "findings": [wrong.wire() for wrong in findings],
    }


async def _sample_holds(session: Session, folder: SealFolder, work: Verification) -> bool:
    """Check a few random positions again that an earlier run has checked; return whether they still hold."""
    count = min(_SAMPLE, work.position)
    positions = sorted(random.sample(range(1, work.position + 1), count))
    try:
        await check_positions(session.log, folder.tiles(work.size), positions)
    except (SealError, MissingTileError):
        return False
    return True
