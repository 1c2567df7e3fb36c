"""Reads views for the API: the live generation, in one transaction, with position and lag.

A short read runs in the event loop, because a thread costs more than most reads. A read that takes too long is
cancelled, and repeated in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from ledger.errors import UnavailableError
from ledger.store.cloudevents import parse_time, stored_decoder
from ledger.store.subscription import ReadCursor
from projections.engine import storage
from projections.engine.storage import Progress
from projections.reading import ReadResult
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import sqlalchemy as sa

    from ledger.store.log import Log
    from projections.engine.storage import ViewStore

_GENERATION_CHECK_SECONDS = 0.25
"""The live generation is looked up again after this time; until then the previous one may still be read."""
_BUSY_REQUESTS, _MOMENT_SECONDS = 32, 0.1
"""From this many requests within a moment on, the log's end is answered from a cache of that age."""
_TIMEOUT_SECONDS, _BUSY_TIMEOUT_SECONDS, _END_CACHE_SECONDS = 0.1, 0.004, 0.5
_SHORT_SECONDS = 0.005
_NEAR_SECONDS = 1.0
_BUILT_CHECK_SECONDS = 0.05
_LOOP_SECONDS = 20.0
"""The longest that a thread waits for the event loop, which may have ended."""


class NotReadyError(Exception):
    """A view has no generation yet: its runner is not running, or has just started."""


class ViewState(NamedTuple):
    """A view's position, the age in seconds of its oldest unread event, and the reason if it has stopped."""

    view: str
    position: int
    lag_seconds: float
    stopped: str | None


class _LiveGeneration:
    """The live generation of a view: an engine for threads, and one connection for short reads in the event loop."""

    def __init__(self, generation: int, engine: sa.Engine, *, answers_at_once: bool) -> None:
        self.generation, self.engine, self.checked_at = generation, engine, 0.0
        self._connection = engine.connect() if answers_at_once else None

    def close(self) -> None:
        """Close the connections."""
        if self._connection is not None:
            self._connection.close()
        self.engine.dispose()

    def read_at_once[T](self, query: Callable[[sa.Connection], T]) -> ReadResult[T] | None:
        """Run a short query in this thread; return ``None`` where it is better read in another one."""
        if self._connection is None:
            return None
        try:
            with storage.driver(self._connection).limited(_SHORT_SECONDS):
                return _read(self._connection, query)
        except storage.FAILURES:
            return None

    def read[T](self, query: Callable[[sa.Connection], T]) -> ReadResult[T]:
        """Run a query on a connection of its own, in any thread."""
        with self.engine.connect() as connection:
            return _read(connection, query)


def _retrieve_exception(asked: asyncio.Task[None]) -> None:
    """Retrieve the exception of a finished task, because its caller may not have waited for it."""
    if not asked.cancelled():
        asked.exception()


def _age(recorded: str) -> float:
    """Return the seconds since a recorded time."""
    return max(0.0, (datetime.now(UTC) - parse_time(recorded)).total_seconds())


def _read[T](connection: sa.Connection, query: Callable[[sa.Connection], T]) -> ReadResult[T]:
    with connection.begin():
        progress = storage.read_progress(connection)  # first: the transaction's snapshot begins here
        return ReadResult(query(connection), progress)


class ViewReader:
    """Reads views through one open engine for each live generation."""

    def __init__(self, store: ViewStore, log: Log, *, patience_seconds: float = 0) -> None:
        """Reads before ``patience_seconds`` have passed from now on wait for the first generation of their view."""
        self._store = store
        self._log = log
        self._patient_until = time.monotonic() + patience_seconds
        self._live: dict[str, _LiveGeneration] = {}
        self._end = (0, -1.0)
        self._end_request: asyncio.Task[None] | None = None
        self._request_times: deque[float] = deque(maxlen=_BUSY_REQUESTS)
        self._states_lock, self._states_read_at = asyncio.Lock(), -1.0
        self._states: list[ViewState] = []
        self._unread = 0, ""
        """Position and recorded time of the event that was last found to be the oldest unread one of a view."""

    def close(self) -> None:
        """Close the databases."""
        for live in self._live.values():
            live.close()
        self._live.clear()

    async def read[T](self, name: str, query: Callable[[sa.Connection], T], *, short: bool = False) -> ReadResult[T]:
        """Return the result of a query; the view may be slightly behind the log.

        ``short`` marks a query that reads few rows and may run twice.

        Raises:
            NotReadyError: the view has no generation yet.
            UnavailableError: the database fails.

        """
        live = await self._built_view(name)
        try:
            return await self._read_live(live, query, short=short)
        except storage.FAILURES as error:  # e.g. another generation has become the live one, and this one is gone
            live.checked_at = 0.0
            again = await self._built_view(name)
            if again is live:
                raise UnavailableError(f"the view {name} cannot be read now: {error}") from error
            return await self._read_live(again, query, short=short)

    def read_in_this_thread[T](
        self, name: str, query: Callable[[sa.Connection], T], loop: asyncio.AbstractEventLoop
    ) -> ReadResult[T]:
        """Return the result of a query that runs in the calling thread; ``loop`` is the event loop of this reader.

        The event loop is asked for the live generation alone. If it waited for a thread, all threads could be in use by
        callers of this method.

        Raises:
            NotReadyError: the view has no generation yet.
            UnavailableError: the database fails, or the event loop has ended.

        """
        live = self._built_for_thread(name, loop)
        try:
            return live.read(query)
        except storage.FAILURES as error:
            live.checked_at = 0.0
            again = self._built_for_thread(name, loop)
            if again is live:
                raise UnavailableError(f"the view {name} cannot be read now: {error}") from error
            return again.read(query)

    def _built_for_thread(self, name: str, loop: asyncio.AbstractEventLoop) -> _LiveGeneration:
        if loop.is_closed():  # this process stops while a report is computed
            raise UnavailableError(f"the view {name} cannot be read now: the event loop has ended")
        try:
            return asyncio.run_coroutine_threadsafe(self._built_view(name), loop).result(_LOOP_SECONDS)
        except TimeoutError as error:
            raise UnavailableError(f"the view {name} cannot be read now: the event loop does not answer") from error

    async def _read_live[T](
        self, live: _LiveGeneration, query: Callable[[sa.Connection], T], *, short: bool
    ) -> ReadResult[T]:
        if short and (found := live.read_at_once(query)) is not None:
            return found
        return await asyncio.to_thread(live.read, query)

    async def read_in_time[T](self, name: str, query: Callable[[sa.Connection], T], seconds: float) -> T | None:
        """Return the result of a query in a thread, or ``None`` if it takes longer.

        Raises:
            NotReadyError: the view has no generation yet.

        """
        live = await self._built_view(name)

        def run() -> T | None:
            with live.engine.connect() as connection:
                try:
                    with storage.driver(connection).limited(seconds):
                        return query(connection)
                except storage.FAILURES:
                    return None

        return await asyncio.to_thread(run)

    async def read_with[T](self, name: str, query: Callable[[sa.Connection], Awaitable[T]]) -> T:
        """Return the result of an asynchronous query, which may read the log as well.

        Raises:
            NotReadyError: the view has no generation yet.

        """
        live = await self._built_view(name)
        with live.engine.connect() as connection, connection.begin():
            return await query(connection)

    def is_built(self, name: str) -> bool:
        """Return whether a view has a generation; looks without waiting."""
        try:
            self._live_view(name)
        except NotReadyError:
            return False
        return True

    async def _built_view(self, name: str) -> _LiveGeneration:
        """Return the live generation; waits for the first one where this process has just started."""
        while time.monotonic() < self._patient_until and not self.is_built(name):  # noqa: ASYNC110 - another process
            await asyncio.sleep(_BUILT_CHECK_SECONDS)
        return self._live_view(name)

    def _live_view(self, name: str) -> _LiveGeneration:
        now, live = time.monotonic(), self._live.get(name)
        if live is not None and now - live.checked_at < _GENERATION_CHECK_SECONDS:
            return live
        model = MODELS[name]()
        generation = self._store.live_generation(model)
        if generation is None:
            raise NotReadyError(f"the view {name} is not built yet: is `resolution-ledger run projections` running?")
        if live is None or live.generation != generation:
            if live is not None:
                live.close()
            engine = self._store.open_generation(model, generation, read_only=True)
            live = _LiveGeneration(generation, engine, answers_at_once=self._store.answers_at_once)
            self._live[name] = live
        live.checked_at = now
        return live

    async def end(self) -> int:
        """Return the log's last position.

        With many requests it is requested ahead and answered from the cache, since a busy server answers late.

        Raises:
            UnavailableError: the server does not answer.

        """
        known, now = self._end[1], time.monotonic()
        self._request_times.append(now)
        many = self._is_busy(now)
        if many and now - known <= _MOMENT_SECONDS / 2:
            return self._end[0]
        if self._end_request is None or self._end_request.done():
            self._end_request = asyncio.create_task(self._request_end(now))
            self._end_request.add_done_callback(_retrieve_exception)
        if not many or now - known > _MOMENT_SECONDS:
            timeout = _BUSY_TIMEOUT_SECONDS if many else _TIMEOUT_SECONDS
            wait_seconds = timeout if now - known < _END_CACHE_SECONDS else None
            done, _ = await asyncio.wait({self._end_request}, timeout=wait_seconds)
            for asked in done:
                asked.result()
        return self._end[0]

    def _is_busy(self, now: float) -> bool:
        """Return whether many requests came within a moment."""
        return len(self._request_times) == _BUSY_REQUESTS and now - self._request_times[0] < _MOMENT_SECONDS

    async def _request_end(self, now: float) -> None:
        position = await self._log.last_position()
        self._end = max(self._end[0], position), now

    def observe_end(self, position: int) -> None:
        """Raise the known end of the log to a position that a client was just told."""
        end, at = self._end
        self._end = max(end, position), at

    async def lag(self, progress: Progress) -> float:
        """Return the age in seconds of the oldest event that the view has not read; 0 if it has read the whole log.

        Within a second of the log's end, it is the age of the newest event that the view has read, which is no less.

        Raises:
            UnavailableError: the view is empty, and the server does not answer.

        """
        return await self._lag(progress, await self.end())

    async def _lag(self, progress: Progress, end: int) -> float:
        position, recorded = progress.anchor.position, progress.recorded
        if position >= end:
            return 0.0
        if recorded and (age := _age(recorded)) < _NEAR_SECONDS:
            return age
        if self._unread[0] != position + 1:
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS if recorded else None):
                    unread = await self._log.at(position + 1)
            except (TimeoutError, UnavailableError):
                if not recorded:
                    raise
                return _age(recorded)
            if unread is None:  # the log has lost it; the view's runner reports this
                return _age(recorded) if recorded else 0.0
            self._unread = position + 1, stored_decoder.decode(unread.data).recordedtime
        return _age(self._unread[1])

    async def states(self) -> list[ViewState]:
        """Return the state of each view; simultaneous requests share one look."""
        now = time.monotonic()
        not_before = now - (_MOMENT_SECONDS if self._is_busy(now) else 0)
        if self._states_read_at < not_before:
            async with self._states_lock:
                if self._states_read_at < not_before:
                    at = time.monotonic()
                    self._states = await self._read_states()
                    self._states_read_at = at
        return self._states

    async def _read_states(self) -> list[ViewState]:
        found, end = [], await self.end()  # once for all views: a busy server answers late
        for name in MODELS:
            try:
                self._live_view(name)
            except NotReadyError as error:
                found.append(ViewState(name, 0, await self._lag(Progress(ReadCursor()), end), str(error)))
                continue
            progress = (await self.read(name, lambda _connection: None, short=True)).progress
            stopped = f"position {progress.stopped.position}: {progress.stopped.reason}" if progress.stopped else None
            found.append(ViewState(name, progress.anchor.position, await self._lag(progress, end), stopped))
        return found
