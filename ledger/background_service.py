"""The base of all services: tasks from start to stop, restarts after unexpected errors, and one signal of failure."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ledger.errors import LedgerError, LocalFileError, UnavailableError
from ledger.nats.client import connect
from ledger.nats.incidents import report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.role_status import Heartbeat, RoleStatus

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0
_PAUSE_SECONDS_AT_MOST = 30.0


class BackgroundService:
    """A service whose tasks run from ``start`` to ``stop``. Subclasses extend both.

    ``failed`` ends with the error that ends the service for good. A process waits for it and exits.
    """

    def __init__(self, name: str, failed: asyncio.Future[None] | None = None) -> None:
        """``failed`` is the future of another service, where this one is a part of that one."""
        self._name = name
        self.failed = failed or asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: list[LedgerClient] = []

    async def start(self) -> None:
        """Start the service's tasks."""

    async def stop(self) -> None:
        """Cancel the service's tasks, then close its connections."""
        await self.end_tasks()
        for client in self._clients:
            await client.close()

    async def end_tasks(self) -> None:
        """Cancel the service's tasks, and wait until they have ended; its connections stay open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def fail(self, error: BaseException) -> None:
        """Fail for good with this error; only the first error counts."""
        if not self.failed.done():
            _log.error("the %s stops: %s", self._name, error)
            self.failed.set_exception(error)
            self.failed.exception()  # marks it as retrieved: a role that fails during its start never waits for it

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a coroutine until ``stop``; its error fails the service."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_end)
        self._tasks.append(task)

    async def connection(self, server: NatsServer, name: str) -> LedgerClient:
        """Return a new connection that ``stop`` closes."""
        client = await connect(server, name)
        self._clients.append(client)
        return client

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)


class RoleService(BackgroundService, ABC):
    """The service of a role."""

    @abstractmethod
    def status(self) -> RoleStatus:
        """Return the role's status."""


async def restarting(
    name: str,
    work: Callable[[], Awaitable[None]],
    pulse: Heartbeat | None = None,
    on_failure: Callable[[], None] = lambda: None,
) -> None:
    """Run ``work``, again after each unexpected error and after longer pauses; ``pulse`` reports the reason to wait.

    ``on_failure`` is called after each error that is this process's own, and not after one of the server's.

    Raises:
        LedgerError: the log has changed, so the role must end. While the server is away, the work is repeated.
    """
    pause = _PAUSE_SECONDS
    while True:
        try:
            await work()
        except UnavailableError as error:
            _log.warning("%s waits: %s", name, error)
            reason, is_ours = str(error), isinstance(error, LocalFileError)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - our own errors are reported and must not end a role
            report(f"{name} failed and begins again", error, error)
            reason, is_ours = f"an error of ours, see the log: {error!r}", True
        else:
            return
        if pulse is not None:
            pulse.wait(reason)
        if is_ours:
            on_failure()
        await asyncio.sleep(pause)
        pause = min(_PAUSE_SECONDS_AT_MOST, 2 * pause)
