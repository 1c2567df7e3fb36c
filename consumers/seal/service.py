"""The role `seal`: seals new events, signs at least once a second, and checks random sealed positions."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import nats.errors

from config import topology
from consumers.seal.archive_service import archive_of
from ledger.background_service import RoleService, restarting
from ledger.errors import LedgerError, UnavailableError
from ledger.nats.client import frame, is_answerable
from ledger.nats.incidents import report
from ledger.store.role_status import Heartbeat, ReaderStatus, RoleStatus
from ledger.store.subscription import Follower, ReadCursor
from ledger.transparency import alarm, seal_mirror
from ledger.transparency.seal_copy import SealCopy
from ledger.transparency.seal_record import SealRecord, open_seal
from ledger.transparency.sealer import Sealer, SealError, SealFolder, check_positions, seal_folder
from ledger.transparency.signed_notes import NoteError
from projections.engine.storage import claim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
LOCK = "seal"
_SIGN_SECONDS = 0.5
_LOOK_BACK_SECONDS = 30.0
_LOOK_BACK_AT = 100
_PAUSE_SECONDS = 1.0
_CLAIM_SECONDS = 0.2


async def seal_log(
    client: LedgerClient,
    log: Log,
    folder: SealFolder,
    *,
    until: int | None = None,
    progressed: Callable[[Sealer], None] | None = None,
    pulse: Heartbeat | None = None,
    secret: str | None = None,
    on_checked: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Seal the log after the newest checkpoint, up to a position or for ever. A new ledger gets its first seal.

    With a ``secret`` the seal's key is copied to the server, encrypted. ``on_checked`` is called once the seal in
    the folder has been found to be the ledger's.

    Raises:
        SealError: the log differs from the seal, or the seal's folder is missing.
        NoteError: the key or a checkpoint cannot be read.
        SealCopyError: the server has a newer copy of the key.

    """
    record = await SealRecord.open(log.client)
    copy = SealCopy(record.log, secret) if secret else None
    if copy is not None and folder.is_begun:
        await copy.keep(folder)  # first, since a folder that was left behind must not look like a changed log
    sealer = Sealer(folder, await open_seal(record, folder, log, archived=_archived(folder)))
    if copy is not None:
        await copy.keep(folder)  # a first seal's
    await sealer.check(log)
    if on_checked is not None:
        await on_checked()
    follower = Follower(client, log, "seal", ReadCursor(sealer.size), gaps=True)
    signing = asyncio.create_task(_keep_signing(sealer, record, pulse, copy, folder)) if until is None else None
    try:
        async for batch in follower.batches(until=until):
            gaps = sealer.gaps
            sealer.take(batch)
            if sealer.gaps > gaps:
                _log.error("no event at %d positions up to %d: sealed as gaps", sealer.gaps - gaps, sealer.size)
            if signing is not None and signing.done():
                signing.result()
            if progressed:
                progressed(sealer)
            await asyncio.sleep(0)
        await record.keep(sealer.sign())
    finally:
        if signing is not None:
            signing.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await signing


async def _keep_signing(
    sealer: Sealer, record: SealRecord, pulse: Heartbeat | None, copy: SealCopy | None, folder: SealFolder
) -> None:
    while True:
        await asyncio.sleep(_SIGN_SECONDS)
        reason = ""
        try:
            if copy is not None:
                await copy.keep(folder)  # before anything is signed with a new key
            await record.keep(sealer.sign())
        except UnavailableError as error:
            _log.debug("a checkpoint is kept the next time: %s", error)
            reason = str(error)
        except (LedgerError, NoteError):
            raise
        except Exception as error:  # noqa: BLE001 - our own error, for example a full disk: signed the next time
            report("a checkpoint could not be signed", error, error)
            reason = f"a checkpoint could not be signed: {error}"
        if pulse is not None and reason:
            pulse.wait(reason)
        elif pulse is not None:
            pulse.beat(sealer.size)


def _archived(folder: SealFolder) -> int:
    """Return the last position of the archive beside a seal, or 0. An archive holds only sealed events."""
    try:
        return archive_of(folder.folder.parent).last_position
    except (OSError, ValueError, LookupError):
        return 0  # `admin scrub` reports faults of the archive


class SealService(RoleService):
    """The seal as a service; it raises the alarm and fails where the log differs from the seal."""

    def __init__(
        self, server: NatsServer, client: LedgerClient, log: Log, data_dir: Path, *, secret: str | None = None
    ) -> None:
        """``secret``: see ``seal_log``."""
        super().__init__("seal")
        self._secret = secret
        self._server = server
        self._client = client
        self._log = log
        self._data_dir = data_dir
        self._folder = seal_folder(data_dir)
        self._pulse = Heartbeat("the seal")

    def status(self) -> RoleStatus:
        """Return the status of the seal; without details where another process seals in this folder."""
        if not self._pulse.active:
            return RoleStatus(role="seal", is_working=False)
        missing = self._pulse.position > 0 and not self._folder.is_begun
        reading = ReaderStatus("the log", max(0, self._pulse.position), self._pulse.still_seconds)
        absent = ("seal",) if missing else ()
        return RoleStatus(role="seal", is_working=True, loops=(self._pulse.loop(),), readings=(reading,), absent=absent)

    async def start(self) -> None:
        """Start to seal, unless another process seals in this folder."""
        reader = await self.connection(self._server, "seal")
        self.spawn(restarting("the seal", partial(self._run, reader)))
        self.spawn(restarting("the seal's look back", self._look_back))

    async def _run(self, reader: LedgerClient) -> None:
        while True:
            with claim(self._data_dir, LOCK) as ours:
                self._pulse.active = ours
                if ours:
                    try:
                        await self._seal(reader)
                    except (UnavailableError, OSError) as error:  # the server does not answer, or the disk is full
                        _log.warning("the seal waits: %s", error)
                        self._pulse.wait(str(error))
                        await asyncio.sleep(_PAUSE_SECONDS)
                    except (SealError, NoteError) as error:
                        await self._raise_alarm(error)
            await asyncio.sleep(_CLAIM_SECONDS)

    async def _seal(self, reader: LedgerClient) -> None:
        async with AsyncExitStack() as answering:

            async def answer() -> None:
                await answering.enter_async_context(self._answering())

            await seal_log(reader, self._log, self._folder, pulse=self._pulse, secret=self._secret, on_checked=answer)

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Give public files and tiles of the seal to other machines, as long as this process seals."""
        subscription = await self._client.subscribe_raw(topology.SEAL_SUBJECT, self._on_request, "seal")
        try:
            yield
        finally:
            with suppress(nats.errors.Error):
                await self._client.unsubscribe_raw(subscription)

    def _on_request(self, _subject: bytes, reply: bytes, _headers: bytes, body: bytes) -> None:
        if is_answerable(reply):
            self._client.send(frame(reply, seal_mirror.answer(self._folder, body)))

    async def _look_back(self) -> None:
        """Compare random sealed positions with the log, at the start and for ever."""
        while True:
            try:
                newest = self._folder.checkpoint()
                if newest is not None:
                    positions = random.sample(range(1, newest.size + 1), min(_LOOK_BACK_AT, newest.size))
                    await check_positions(self._log, self._folder.tiles(newest.size), sorted(positions))
            except (UnavailableError, OSError) as error:
                _log.debug("the seal could not look back: %s", error)
            except (SealError, NoteError, LookupError) as error:
                await self._raise_alarm(error)
            await asyncio.sleep(_LOOK_BACK_SECONDS)

    async def _raise_alarm(self, error: Exception) -> None:
        """Raise the alarm durably, then fail with the error."""
        position = error.position if isinstance(error, SealError) else 0
        until = time.monotonic() + 30
        while True:
            try:
                await alarm.raise_alarm(self._client, position, str(error))
                break
            except UnavailableError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
        raise error if isinstance(error, LedgerError) else SealError(str(error), position)
