"""Reading and renewing the seal from a command, beside a running `up` or alone."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from consumers.seal_service import LOCK, seal_log
from ledger.errors import UnavailableError
from ledger.follow import Anchor, Follower
from ledger.notes import NoteError
from ledger.seal import SealError, seal_folder
from ledger.verify import Verification
from projections.generations import claim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.session import Session
    from ledger.notes import Checkpoint, Verifier

VERIFY_STATE = "verify.json"
_PATIENCE_SECONDS = 60.0
_SAVE_EVERY = 100_000


async def seal_to_the_end(session: Session, *, forgiving: bool = False) -> None:
    """Seal what is in the log now, or wait until whoever runs the seal has.

    Raises:
        SealError: the log is not what was sealed; not when ``forgiving``.
        UnavailableError: whoever runs the seal does not get there in time.

    """
    folder, end = seal_folder(session.data_dir), await session.log.last_position()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with claim(session.data_dir, LOCK) as ours:
            if ours:
                try:
                    await seal_log(await session.connection("seal"), session.log, folder, until=end)
                except (SealError, NoteError):
                    if not forgiving:
                        raise
                return
        newest = folder.checkpoint()
        if newest is not None and newest.size >= end:
            return
        if time.monotonic() > deadline:
            message = f"the seal does not reach position {end}: see what `resolution-ledger run seal` says"
            raise UnavailableError(message)
        await asyncio.sleep(0.05)


async def verification(session: Session, brought: Sequence[Checkpoint], trusted: Sequence[Verifier], *,
                       resume: bool = False, progressed: Callable[[int, int], None]) -> dict[str, Any]:  # fmt: skip
    """Hold the whole log against its seal; the document that `audit verify --json` prints.

    Raises:
        NoteError: the checkpoint, or a key, cannot be read.

    """
    folder = seal_folder(session.data_dir)
    trusts = folder.trusted(trusted)
    work = Verification(folder, brought, trusts)
    state = session.data_dir / VERIFY_STATE
    if resume:
        work.load(state)
    end = await session.log.last_position()
    follower = Follower(await session.connection("verify"), session.log, "verify", Anchor(work.position), gaps=True)
    saved = work.position
    async for batch in follower.batches(until=min(end, work.size)):
        work.take(batch)
        if work.position - saved >= _SAVE_EVERY:
            work.save(state)
            saved = work.position
        progressed(work.position, work.size)
        await asyncio.sleep(0)
    findings = work.findings(end)
    state.unlink(missing_ok=True)
    newest = folder.checkpoint()
    return {
        "size": work.size, "root": newest.root.hex() if newest else "", "last_position": end,
        "not_sealed": max(0, end - work.size), "gaps": work.gaps, "brought": [one.size for one in brought],
        "signed_by": [verifier.text() for verifier in newest.signed_by(trusts)] if newest else [],
        "findings": [wrong.wire() for wrong in findings],
    }  # fmt: skip
