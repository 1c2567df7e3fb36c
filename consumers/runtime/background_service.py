"""Tasks of services: they go on after an error of ours, and report their end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ledger.errors import LedgerError, UnavailableError
from ledger.nats.incidents import report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ledger.store.role_status import Pulse

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0
_PAUSE_SECONDS_AT_MOST = 30.0


async def keep_going(name: str, work: Callable[[], Awaitable[None]], pulse: Pulse | None = None) -> None:
    """Do some work, and begin it again after every unexpected error, later each time; a ``pulse`` tells why it waits.

    Raises:
        LedgerError: the log is not what it was: then the role has to end. Only a server that is away is waited for.

    """
    pause = _PAUSE_SECONDS
    while True:
        try:
            await work()
        except UnavailableError as error:
            _log.warning("%s waits: %s", name, error)
            why = str(error)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - an error of ours is reported; it ends no role
            report(f"{name} failed and begins again", error, error)
            why = f"an error of ours, see the log: {error!r}"
        else:
            return
        if pulse is not None:
            pulse.wait(why)
        await asyncio.sleep(pause)
        pause = min(_PAUSE_SECONDS_AT_MOST, 2 * pause)


def fails_with(failed: asyncio.Future[None], name: str) -> Callable[[asyncio.Task[None]], None]:
    """What to call at a task's end: a service whose task fails has failed for good."""

    def note(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not failed.done():
            _log.error("the %s stops: %s", name, error)
            failed.set_exception(error)

    return note
