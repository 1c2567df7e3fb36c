"""The runner of the guard: reads the whole log from its beginning, then follows it; its flags are events."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from consumers.guard.flag_writer import FlagWriter, record_flag
from consumers.runtime.background_service import fails_with, keep_going
from ledger.errors import UnavailableError
from ledger.nats.client import connect
from ledger.store.role_status import Pulse, Reading, RoleStatus
from ledger.store.subscription import Follower

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from domain.abuse.rule_interface import EventRule
    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0
_AT_ONCE = 200


class GuardService:
    """Start it, and wait for ``failed``: the log is not what it was. Two may run: each flag is raised once."""

    def __init__(
        self,
        server: NatsServer,
        log: Log,
        *,
        history: bool = False,
        plugins: Callable[[], Sequence[EventRule]] = tuple,
    ) -> None:
        """In ``history`` mode the event time counts; ``plugins`` makes the rules of other packages anew."""
        self._server = server
        self._log = log
        self._history = history
        self._plugins = plugins
        self.position = 0
        """Up to where it has read, and recorded what it found."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._reader: LedgerClient | None = None
        self._pulse = Pulse("the guard", lambda: False)

    def status(self) -> RoleStatus:
        """Return how the guard is."""
        reading = Reading("the log", self.position, self._pulse.still_seconds)
        return RoleStatus(role="guard", history=self._history, loops=(self._pulse.loop(),), readings=(reading,))

    async def start(self) -> None:
        """Begin to read."""
        self._reader = await connect(self._server, "guard")
        self._task = asyncio.create_task(keep_going("the guard", self._run, self._pulse))
        self._task.add_done_callback(fails_with(self.failed, "guard"))

    async def stop(self) -> None:
        """Leave; what is found is the same the next time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._reader is not None:
            await self._reader.close()

    async def _run(self) -> None:
        assert self._reader is not None
        # A new writer that reads the log from its beginning raises the same flags again, each with the same id.
        self._guarding = FlagWriter(happened=self._history, plugins=self._plugins())
        async for batch in Follower(self._reader, self._log, "guard").batches():
            for at in range(0, len(batch), _AT_ONCE):
                for raised in self._guarding.take(batch[at : at + _AT_ONCE]):
                    while True:
                        try:
                            await record_flag(self._log, raised)
                            break
                        except UnavailableError as error:
                            _log.warning("the guard waits: %s", error)
                            self._pulse.wait(str(error))
                            await asyncio.sleep(_PAUSE_SECONDS)
                self.position = self._guarding.position
                self._pulse.beat(self.position)
                await asyncio.sleep(0)
