"""The role `guard`: reads the log from its beginning, follows it, and records flags as events."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from consumers.guard.flag_writer import FlagWriter, record_draft
from ledger.background_service import RoleService, restarting
from ledger.errors import UnavailableError
from ledger.store.role_status import Heartbeat, ReaderStatus, RoleStatus
from ledger.store.subscription import Follower

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from domain.abuse.cases import CaseDraft
    from domain.abuse.flag_book import FlagDraft
    from domain.abuse.rule_interface import CountingRule
    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0
_AT_ONCE = 200


class GuardService(RoleService):
    """The guard as a service. Several may run at once: each flag is recorded once."""

    def __init__(
        self,
        server: NatsServer,
        log: Log,
        *,
        history: bool = False,
        plugins: Callable[[], Sequence[CountingRule]] = tuple,
    ) -> None:
        """``history``: use event times instead of recorded times. ``plugins``: make the rules of other packages."""
        super().__init__("guard")
        self._server = server
        self._log = log
        self._history = history
        self._plugins = plugins
        self.position = 0
        """The position up to which all flags are recorded."""
        self._pulse = Heartbeat("the guard", lambda: False)

    def status(self) -> RoleStatus:
        """Return the status of the guard."""
        reading = ReaderStatus("the log", self.position, self._pulse.still_seconds)
        return RoleStatus(role="guard", history=self._history, loops=(self._pulse.loop(),), readings=(reading,))

    async def start(self) -> None:
        """Start to read the log."""
        reader = await self.connection(self._server, "guard")
        self.spawn(restarting("the guard", partial(self._run, reader), self._pulse))

    async def _run(self, reader: LedgerClient) -> None:
        # A restart raises the same flags again.
        writer = FlagWriter(event_times=self._history, plugins=self._plugins())
        async for batch in Follower(reader, self._log, "guard").batches():
            for at in range(0, len(batch), _AT_ONCE):
                drafts: list[FlagDraft | CaseDraft] = [*writer.take(batch[at : at + _AT_ONCE])]
                drafts += writer.take_cases()
                for draft in drafts:
                    while True:
                        try:
                            await record_draft(self._log, draft)
                            break
                        except UnavailableError as error:
                            _log.warning("the guard waits: %s", error)
                            self._pulse.wait(str(error))
                            await asyncio.sleep(_PAUSE_SECONDS)
                self.position = writer.position
                self._pulse.beat(self.position)
                await asyncio.sleep(0)
