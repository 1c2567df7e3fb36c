"""Comparison of the host's clock with the NATS server's: a clock that is ahead must not stamp recorded events."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from ledger.errors import ClockError, LedgerError, UnavailableError
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.nats.client import LedgerClient
    from ledger.store.api_types import ApiAnswer

_log = logging.getLogger(__name__)
AHEAD_SECONDS = 60.0
"""Nothing is recorded while the host's clock is further ahead of the server's than this."""
_LEAP_SECONDS = 24 * 3600.0
_MEASURED_SECONDS = 30.0
"""Seconds for which a time stamp of the server is valid."""
_MEASURED_AGAIN_SECONDS = 1.0


def _steady_seconds() -> float:
    """Return seconds of a clock that is never set; Linux's CLOCK_BOOTTIME also counts while a laptop sleeps."""
    if sys.platform != "linux":
        return time.monotonic()
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockOffset(NamedTuple):
    """Seconds that the host's clock is ahead of the server's: lower and upper bound."""

    at_least: float
    at_most: float


class ServerTime:
    """The server's clock as this process knows it: one time stamp of the server, extended by a steady clock.

    The time stamp in the answer to STREAM.INFO is read now and then. Between two of them a steady clock gives the
    server's time, so that a check costs no request. If host and server share one clock that leaps ahead, the steady
    clock shows it: a leap of more than a day is not accepted before this process is restarted.
    """

    def __init__(
        self,
        client: LedgerClient,
        stream: str,
        clock: Callable[[], datetime],
        steady: Callable[[], float] = _steady_seconds,
        on_info: Callable[[ApiAnswer], None] = lambda _info: None,
    ) -> None:
        """``on_info`` is called with each answer to STREAM.INFO."""
        self._on_info = on_info
        self._client = client
        self._stream = stream
        self._clock = clock
        self._steady = steady
        self._server_at: float | None = None
        self._steady_at = 0.0
        self._measured_at = 0.0
        self._leapt = False  # the server's clock leapt together with the host's
        self._measuring: asyncio.Task[None] | None = None
        self._refusing = False

    async def measure(self) -> ClockOffset | None:
        """Ask the server for its time; None if the answer has none.

        Raises:
            UnavailableError: no answer in time.
        """
        steady, host = self._steady(), self._clock().timestamp()
        self._measured_at = steady
        info = await js_api(self._client, f"STREAM.INFO.{self._stream}")
        self._on_info(info)
        try:
            server = datetime.fromisoformat(info["ts"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return None
        later = self._clock().timestamp()
        known_server = self._server_at if steady >= self._steady_at else None
        self._leapt = known_server is not None and server - (known_server + steady - self._steady_at) > _LEAP_SECONDS
        if not self._leapt:
            self._server_at, self._steady_at = server, steady
        return ClockOffset(host - server, later - server)

    def ahead_seconds(self, now: datetime) -> float:
        """Return the seconds that a time of the host's clock is ahead of the server's; negative: behind."""
        if self._server_at is None:
            return 0.0
        return now.timestamp() - (self._server_at + self._steady() - self._steady_at)

    def check(self, now: datetime) -> None:
        """Check a time of the host's clock against the known server time, without a request.

        Raises:
            ClockError: it is more than a minute ahead, or the last measurement is too old to know.
        """
        ahead, age = self.ahead_seconds(now), self._age()
        if ahead > AHEAD_SECONDS:
            raise ClockError(_ahead_text(ahead, now, leapt=self._leapt))
        if age > _MEASURED_SECONDS:
            raise ClockError("the server has to be asked for its time first")
        self._measure_soon(age)

    async def renew(self, seconds: float | None = None) -> None:
        """Measure again after an old measurement: soon, or at once where it is too old to stamp by.

        ``seconds``: at once where it is older than that.

        Raises:
            UnavailableError: no answer in time.
        """
        age = self._age()
        if age > (_MEASURED_SECONDS if seconds is None else seconds):
            await self.measure()
        else:
            self._measure_soon(age)

    def _measure_soon(self, age: float) -> None:
        if age > _MEASURED_SECONDS / 2 and (self._measuring is None or self._measuring.done()):
            self._measuring = asyncio.get_running_loop().create_task(self._measure_quietly())

    def _age(self) -> float:
        """Return the seconds since the last measurement; infinity if the steady clock went back."""
        age = self._steady() - self._measured_at
        return age if age >= 0 else float("inf")

    async def verify(self) -> None:
        """Check the host's clock; measure again after an old measurement, or if the clock seems ahead.

        Raises:
            ClockError: the host's clock is more than a minute ahead.
            UnavailableError: the server does not answer.
        """
        age = self._age()
        suspicious = self.ahead_seconds(self._clock()) > AHEAD_SECONDS and (
            age > _MEASURED_AGAIN_SECONDS or not self._refusing
        )
        if suspicious or age > _MEASURED_SECONDS / 2:
            await self.measure()
        try:
            self.check(self._clock())
        except ClockError as error:
            if not self._refusing:
                self._refusing = True
                _log.error("%s waits: %s", self._stream, error)
            raise
        if self._refusing:
            self._refusing = False
            _log.warning("%s: the host's clock is correct again; recording continues", self._stream)

    async def _measure_quietly(self) -> None:
        try:
            await self.measure()
        except (UnavailableError, LedgerError) as error:
            _log.debug("the server's time is not known: %s", error)


def _ahead_text(ahead: float, now: datetime, *, leapt: bool) -> str:
    correct_time = _time_text(now - timedelta(seconds=ahead))
    description = f"ahead: it shows {_time_text(now)}, while the NATS server's time stamps say {correct_time}"
    if leapt:
        description = (
            f"ahead: it leapt to {_time_text(now)} together with the server's, although {correct_time} was next"
        )
    advice = "Nothing is recorded until it is correct: set the host's clock"
    if leapt:
        advice += ", or restart this process if the new time is correct"
    return f"the host's clock is {duration_text(ahead)} {description}. {advice}"


def _time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def utc_now() -> datetime:
    """Return the host's time."""
    return datetime.now(UTC)


def duration_text(seconds: float) -> str:
    """Return a duration for people: ``40 days``, ``2 h 5 min``, ``75 s``."""
    whole = round(abs(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h" if hours else f"{days} days"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
