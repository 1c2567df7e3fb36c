"""The role `guard`: follows the log from its state's position, and records flags as events."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from consumers.guard.flag_writer import FlagWriter, record_draft
from consumers.guard.state import guard_folder, open_state, state_file, state_version
from domain.keyed_state import LostRowError, MemoryState
from ledger import traces
from ledger.background_service import RoleService, restarting
from ledger.errors import StateError, UnavailableError
from ledger.store.lease import Lease
from ledger.store.log import digest_of
from ledger.store.role_status import Heartbeat, ReaderStatus, RoleStatus
from ledger.store.snapshots import Snapshots
from ledger.store.subscription import Follower, ReadCursor
from projections.engine.storage import claim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from domain.abuse.cases import CaseDraft
    from domain.abuse.flag_book import FlagDraft
    from domain.abuse.rule_interface import CountingRule
    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.log import Log
    from ledger.store.state_file import StateFile

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0
_CLAIM_SECONDS = 0.2
_AT_ONCE = 200
_WITH_PLUGINS_AT_ONCE = 10
"""Events between two turns of the event loop where rules of other packages, of unknown speed, judge them, too."""
_VERSION_DIGITS = 16
_COMMIT_EVENTS, _COMMIT_SECONDS = 10_000, 5.0


class GuardService(RoleService):
    """The guard as a service. Of several processes, on any machines, the one that has the lease reads the log."""

    def __init__(
        self,
        server: NatsServer,
        log: Log,
        data_dir: Path,
        *,
        history: bool = False,
        plugins: Callable[[], Sequence[CountingRule]] = tuple,
    ) -> None:
        """``history``: use event times instead of recorded times. ``plugins``: make the rules of other packages."""
        super().__init__("guard")
        self._server = server
        self._log = log
        self._folder = guard_folder(data_dir)
        self._history = history
        self._plugins = plugins
        self.position = 0
        """The position up to which all flags are recorded."""
        self._committed = 0
        self._lease: Lease | None = None
        self._pulse = Heartbeat("the guard", lambda: False)
        self._pulse.active = False
        self._copies = Snapshots(log.client, "guard", state_version(event_times=history)[:_VERSION_DIGITS])

    def status(self) -> RoleStatus:
        """Return the status of the guard; without details where another process guards."""
        if not self._pulse.active:
            return RoleStatus(role="guard", is_working=False, history=self._history)
        reading = ReaderStatus("the log", self.position, self._pulse.still_seconds)
        is_working = self._lease is not None and self._lease.is_working and not self._pulse.waits
        loops, readings = (self._pulse.loop(),), (reading,)
        return RoleStatus(role="guard", is_working=is_working, history=self._history, loops=loops, readings=readings)

    async def start(self) -> None:
        """Start to read the log, unless another process does."""
        reader = await self.connection(self._server, "guard")
        # a connection of its own, where no pulled events delay its answers
        lease = self._lease = Lease(await self.connection(self._server, "guard lease"), "guard")
        await lease.start()
        self.spawn(restarting("the guard", partial(self._run, reader, lease), self._pulse, lease.note_failure))
        file = state_file(self._folder)
        self.spawn(self._copies.keep_going(file, lambda: self._committed, lambda: self._pulse.active))

    async def stop(self) -> None:
        """Stop, and leave the work to the next process."""
        await self.end_tasks()  # the state is closed before another process of this directory goes on
        if self._lease is not None:
            await self._lease.stop()
        await super().stop()

    async def _run(self, reader: LedgerClient, lease: Lease) -> None:
        waits_for = ""
        while True:
            with claim(self._folder, "guard") if lease.is_ours else nullcontext(enter_result=False) as ours:
                self._pulse.active = ours
                if ours:
                    try:
                        await self._follow_while_ours(reader, lease)
                    except StateError as error:  # the next attempt begins with the last commit
                        if str(error) != waits_for:
                            waits_for = str(error)
                            _log.warning("the guard waits: %s", error)
                        self._pulse.wait(str(error))
                        lease.note_failure()
                        await asyncio.sleep(_PAUSE_SECONDS)
                elif lease.is_ours:
                    lease.note_failure()  # another process has the folder
            await asyncio.sleep(_CLAIM_SECONDS)

    async def _follow_while_ours(self, reader: LedgerClient, lease: Lease) -> None:
        following = asyncio.create_task(self._follow(reader))
        try:
            while lease.is_ours and not following.done():
                await asyncio.wait((following,), timeout=_CLAIM_SECONDS)
        finally:
            following.cancel()
            (end,) = await asyncio.gather(following, return_exceptions=True)
        if isinstance(end, Exception):  # not the cancellation of a guard that has lost the lease
            raise end

    async def _follow(self, reader: LedgerClient) -> None:
        """Follow the log from the state's position. Flags are recorded before the state that contains them.

        It returns where the state was damaged, and is empty now.

        Raises:
            StateError: the state cannot be read or written now.
        """
        self._committed = 0  # the file may be replaced
        plugins = self._plugins()
        if not plugins:
            await self._restore()
        with await open_state(self._folder, self._log, event_times=self._history) as state:
            try:
                await self._guard(reader, state, plugins)
            except (StateError, LostRowError) as error:
                if isinstance(error, StateError) and not error.damaged:
                    raise
                _log.warning("the guard's state is built again from the whole log: %s", error)
                self._committed = 0
                state.discard(str(error))

    async def _restore(self) -> None:
        """Take the copy in the server where it is far ahead: another process may have worked for long."""
        file, position = state_file(self._folder), 0
        if file.exists():
            with await open_state(self._folder, self._log, event_times=self._history) as kept:
                position = kept.cursor.position
        await self._copies.restore(file, position)

    async def _guard(self, reader: LedgerClient, state: StateFile, plugins: Sequence[CountingRule]) -> None:
        if plugins:
            _log.info("rules of other packages keep their memory to themselves: the guard reads the whole log")
            state.discard("rules of other packages")
        writer = FlagWriter(event_times=self._history, plugins=plugins, state=MemoryState() if plugins else state)
        at_once = _WITH_PLUGINS_AT_ONCE if plugins else _AT_ONCE
        self.position = state.cursor.position
        self._committed, committed_at = self.position, time.monotonic()
        self._pulse.beat(self.position)
        async for batch in Follower(reader, self._log, "guard", state.cursor).batches():
            for at in range(0, len(batch), at_once):
                part = batch[at : at + at_once]
                with traces.batch(self._log.stream, "guard", ((b"", event.data) for event in part)):
                    drafts: list[FlagDraft | CaseDraft] = [*writer.take(part)]
                    drafts += writer.take_cases()
                    for draft in drafts:
                        await self._record(draft)
                self.position, last = writer.position, part[-1]
                late = time.monotonic() - committed_at > _COMMIT_SECONDS
                if not plugins and (late or self.position - self._committed >= _COMMIT_EVENTS):
                    await asyncio.to_thread(state.commit, ReadCursor(last.position, digest_of(last.data)))
                    self._committed, committed_at = self.position, time.monotonic()
                self._pulse.beat(self.position)
                await asyncio.sleep(0)

    async def _record(self, draft: FlagDraft | CaseDraft) -> None:
        while True:
            try:
                await record_draft(self._log, draft)
            except UnavailableError as error:
                _log.warning("the guard waits: %s", error)
                self._pulse.wait(str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return
