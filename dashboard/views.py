"""Views as the API reads them: whatever generation is live, in one transaction, with position and lag."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger.cloudevents import parse_time
from projections import generations
from projections.answers import Answer
from projections.catalogue import MODELS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import sqlalchemy as sa

    from ledger.log import Log
    from projections.generations import Progress


_MOMENT_SECONDS = 0.02


class NotReadyError(Exception):
    """A view has not been built yet: its runner is not there, or has just begun."""


class State(NamedTuple):
    """How far a view is: its position, how old that is, whether it stopped."""

    view: str
    position: int
    lag_seconds: float
    stopped: str | None


class Views:
    """Reads views; their engines stay open, one for each generation."""

    def __init__(self, data_dir: Path, log: Log) -> None:
        self._folder = generations.views_folder(data_dir)
        self._log = log
        self._engines: dict[tuple[str, int], sa.Engine] = {}
        self._end = (0, 0.0)
        self._asking = asyncio.Lock()
        self._looking, self._looked = asyncio.Lock(), -1.0
        self._states: list[State] = []

    def close(self) -> None:
        """Close the files."""
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()

    async def read(self, name: str, query: Callable[[sa.Connection], Any]) -> Answer:
        """The query's answer; the view may be a moment behind the log.

        Raises:
            NotReadyError: there is no such view yet.

        """
        return await asyncio.to_thread(self._read, name, query)

    def _read(self, name: str, query: Callable[[sa.Connection], Any]) -> Answer:
        with self._engine(name).connect() as connection, connection.begin():
            progress = generations.read_progress(connection)  # first: it fixes what this transaction sees
            return Answer(query(connection), progress)

    async def read_with[T](self, name: str, query: Callable[[sa.Connection], Awaitable[T]]) -> T:
        """The same for a query that asks the log as well.

        Raises:
            NotReadyError: there is no such view yet.

        """
        with self._engine(name).connect() as connection, connection.begin():
            return await query(connection)

    def _engine(self, name: str) -> sa.Engine:
        model = MODELS[name]()
        generation = generations.live_generation(self._folder, model)
        if generation is None:
            message = f"the view {name} is not built yet: is `resolution-ledger run projections` running?"
            raise NotReadyError(message)
        engine = self._engines.get((name, generation))
        if engine is None:
            engine = self._engines[name, generation] = generations.open_generation(self._folder, model, generation)
            for old in [key for key in self._engines if key[0] == name and key[1] != generation]:
                self._engines.pop(old).dispose()
        return engine

    async def end(self) -> int:
        """The log's last position, asked for once by all who want it in the same moment."""
        async with self._asking:
            position, at = self._end
            if time.monotonic() - at > _MOMENT_SECONDS:
                position = await self._log.last_position()
                self._end = position, time.monotonic()
            return position

    async def lag(self, progress: Progress) -> float:
        """Seconds since what the view has read was recorded, where the log goes on behind it; else 0."""
        if progress.anchor.position >= await self.end() or not progress.recorded:
            return 0.0
        return max(0.0, (datetime.now(UTC) - parse_time(progress.recorded)).total_seconds())

    async def states(self) -> list[State]:
        """How far each view is; looked at once for all who ask while somebody else is looking."""
        asked = time.monotonic()
        async with self._looking:
            if self._looked < asked:
                self._looked = time.monotonic()
                self._states = await self._look()
            return self._states

    async def _look(self) -> list[State]:
        found = []
        for name in MODELS:
            try:
                progress = (await self.read(name, lambda _connection: None)).progress
            except NotReadyError as error:
                found.append(State(name, 0, 0.0, str(error)))
                continue
            stopped = f"position {progress.stopped.position}: {progress.stopped.reason}" if progress.stopped else None
            found.append(State(name, progress.anchor.position, await self.lag(progress), stopped))
        return found
