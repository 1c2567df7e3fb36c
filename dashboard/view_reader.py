"""Reads views for the API: the live generation, in one transaction, with position and lag.

A short read runs in the event loop, because a thread costs more than most reads. A read that takes too long is
cancelled, and repeated in a thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from ledger.store.cloudevents import parse_time
from projections.engine import storage
from projections.reading import ReadResult
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import sqlalchemy as sa

    from ledger.store.log import Log
    from projections.engine.storage import Progress


_LOOK_SECONDS = 0.25
"""The live generation is looked up again after this time; until then the previous one may still be read."""
_MANY, _MOMENT_SECONDS = 32, 0.1
"""From this many requests within a moment on, the log's end is answered from a cache of that age."""
_PATIENCE_SECONDS, _MANY_PATIENCE_SECONDS, _KNOWN_SECONDS = 0.1, 0.004, 0.5
_SHORT_SECONDS = 0.005
_STEPS = 2000
"""SQLite checks the clock after this many steps of its virtual machine."""


class NotReadyError(Exception):
    """A view has no generation yet: its runner is not running, or has just started."""


class ViewState(NamedTuple):
    """A view's position, its age in seconds, and the reason if it has stopped."""

    view: str
    position: int
    lag_seconds: float
    stopped: str | None


class _Live:
    """The live generation of a view: an engine for threads, and one connection for short reads."""

    def __init__(self, generation: int, engine: sa.Engine, given_up: Callable[[], bool]) -> None:
        self.generation, self.engine, self.looked = generation, engine, 0.0
        self.here = engine.connect()
        driver = self.here.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(given_up, _STEPS)

    def close(self) -> None:
        """Close the file."""
        self.here.close()
        self.engine.dispose()

    def read[T](self, query: Callable[[sa.Connection], T]) -> ReadResult[T]:
        """Run a query on a connection of its own, in any thread."""
        with self.engine.connect() as connection:
            return _read(connection, query)


def _heard(asked: asyncio.Task[None]) -> None:
    """Retrieve the exception of a finished task, because its caller may not have waited for it."""
    if not asked.cancelled():
        asked.exception()


def _lag(progress: Progress, end: int) -> float:
    if progress.anchor.position >= end or not progress.recorded:
        return 0.0
    return max(0.0, (datetime.now(UTC) - parse_time(progress.recorded)).total_seconds())


def _read[T](connection: sa.Connection, query: Callable[[sa.Connection], T]) -> ReadResult[T]:
    with connection.begin():
        progress = storage.read_progress(connection)  # first: the transaction's snapshot begins here
        return ReadResult(query(connection), progress)


class ViewReader:
    """Reads views through one open engine for each live generation."""

    def __init__(self, data_dir: Path, log: Log) -> None:
        self._folder = storage.views_folder(data_dir)
        self._log = log
        self._live: dict[str, _Live] = {}
        self._until = 0.0
        self._end = (0, -1.0)
        self._asking: asyncio.Task[None] | None = None
        self._asked: deque[float] = deque(maxlen=_MANY)
        self._looking, self._looked = asyncio.Lock(), -1.0
        self._states: list[ViewState] = []

    def close(self) -> None:
        """Close the files."""
        for live in self._live.values():
            live.close()
        self._live.clear()

    async def read[T](self, name: str, query: Callable[[sa.Connection], T], *, short: bool = False) -> ReadResult[T]:
        """Return the result of a query; the view may be slightly behind the log.

        ``short`` marks a query that reads few rows and may run twice.

        Raises:
            NotReadyError: the view has no generation yet.

        """
        live = self._of(name)
        if short:
            self._until = time.perf_counter() + _SHORT_SECONDS
            try:
                return _read(live.here, query)
            except storage.FAILURES:  # cancelled: repeat it in a thread
                pass
        return await asyncio.to_thread(live.read, query)

    async def read_with[T](self, name: str, query: Callable[[sa.Connection], Awaitable[T]]) -> T:
        """Return the result of an asynchronous query, which may read the log as well.

        Raises:
            NotReadyError: the view has no generation yet.

        """
        with self._of(name).engine.connect() as connection, connection.begin():
            return await query(connection)

    def _of(self, name: str) -> _Live:
        now, live = time.monotonic(), self._live.get(name)
        if live is not None and now - live.looked < _LOOK_SECONDS:
            return live
        model = MODELS[name]()
        generation = storage.live_generation(self._folder, model)
        if generation is None:
            message = f"the view {name} is not built yet: is `resolution-ledger run projections` running?"
            raise NotReadyError(message)
        if live is None or live.generation != generation:
            if live is not None:
                live.close()
            engine = storage.open_generation(self._folder, model, generation)
            live = self._live[name] = _Live(generation, engine, self._given_up)
        live.looked = now
        return live

    def _given_up(self) -> bool:
        return time.perf_counter() > self._until

    async def end(self) -> int:
        """Return the log's last position.

        With many requests it is requested ahead and answered from the cache, since a busy server answers late.

        Raises:
            UnavailableError: the server does not answer.

        """
        known, now = self._end[1], time.monotonic()
        self._asked.append(now)
        many = self._many(now)
        if many and now - known <= _MOMENT_SECONDS / 2:
            return self._end[0]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(now))
            self._asking.add_done_callback(_heard)
        if not many or now - known > _MOMENT_SECONDS:
            patience = _MANY_PATIENCE_SECONDS if many else _PATIENCE_SECONDS
            done, _ = await asyncio.wait({self._asking}, timeout=patience if now - known < _KNOWN_SECONDS else None)
            for asked in done:
                asked.result()
        return self._end[0]

    def _many(self, now: float) -> bool:
        """Return whether many requests came within a moment."""
        return len(self._asked) == _MANY and now - self._asked[0] < _MOMENT_SECONDS

    async def _ask(self, now: float) -> None:
        position = await self._log.last_position()
        self._end = max(self._end[0], position), now

    def heard_of(self, position: int) -> None:
        """Raise the known end of the log to a position that a client was just told."""
        end, at = self._end
        self._end = max(end, position), at

    async def lag(self, progress: Progress) -> float:
        """Return the age of the view's newest event in seconds if the view is behind the log, else 0."""
        return _lag(progress, await self.end())

    async def states(self) -> list[ViewState]:
        """Return the state of each view; simultaneous requests share one look."""
        now = time.monotonic()
        wanted = now - (_MOMENT_SECONDS if self._many(now) else 0)
        if self._looked < wanted:
            async with self._looking:
                if self._looked < wanted:
                    at = time.monotonic()
                    self._states = await self._look()
                    self._looked = at
        return self._states

    async def _look(self) -> list[ViewState]:
        found, end = [], await self.end()  # once for all views: a busy server answers late
        for name in MODELS:
            try:
                progress = (await self.read(name, lambda _connection: None, short=True)).progress
            except NotReadyError as error:
                found.append(ViewState(name, 0, 0.0, str(error)))
                continue
            stopped = f"position {progress.stopped.position}: {progress.stopped.reason}" if progress.stopped else None
            found.append(ViewState(name, progress.anchor.position, _lag(progress, end), stopped))
        return found
