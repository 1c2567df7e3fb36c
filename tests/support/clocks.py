"""Clocks that tests can set wrong, and logs that believe them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ledger.nats.client import LedgerClient
from ledger.store.log import Log
from ledger.store.server_time import ServerTime


class HostClock:
    """A host's clock that is wrong by ``wrong_by``."""

    def __init__(self) -> None:
        self.wrong_by = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.wrong_by


class SteadyClock:
    """A monotonic clock that stands still until a test sets it, as in a machine that is paused."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class UncheckedServerTime(ServerTime):
    """A server time that compares no clocks, like versions before 0.1."""

    def check(self, now: datetime) -> None:
        pass

    async def verify(self) -> None:
        pass


async def unchecked_log(client: LedgerClient, moment: datetime) -> Log:
    """Return a log that stamps this moment, like that of a host whose clock was wrong."""
    log = await Log.open(client, "LEDGER", lambda: moment)
    log.server_time = UncheckedServerTime(client, "LEDGER", lambda: moment)
    return log
