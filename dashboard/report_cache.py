"""A cache of reports: computed once for simultaneous requests, and kept for a short time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from domain.serialization import Json
from projections.engine.storage import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    import sqlalchemy as sa

    from dashboard.view_reader import ViewReader
    from projections.reading import Reader, ReadResult

_CAPACITY = 64
_MIN_SECONDS, _COMPUTING_TIMES = 0.3, 4.0
"""A report is kept for at least this many seconds, or for this multiple of its computing time, if longer."""


class _CachedReport(NamedTuple):
    document: Mapping[str, Json]
    progress: Progress
    until: float


class _ViewsOfReport:
    """Reads the views of one report, and notes the progress of the view that has read least."""

    def __init__(self, views: ViewReader) -> None:
        self._views = views
        self._read: list[Progress] = []

    async def read[T](self, name: str, query: Callable[[sa.Connection], T], /) -> ReadResult[T]:
        """Return the result of a query on a view."""
        answer = await self._views.read(name, query)
        self._read.append(answer.progress)
        return answer

    def progress(self) -> Progress:
        """Return the lowest progress."""
        return min(self._read, key=lambda one: one.anchor.position)


class ReportCache:
    """Reports by key. Each has the lowest position of the views behind it, and its lag when it is sent.

    So the reader of a kept report sees that the views have read further since.
    """

    def __init__(self, views: ViewReader) -> None:
        self._views = views
        self._reports: OrderedDict[Hashable, _CachedReport] = OrderedDict()
        self._locks: dict[Hashable, asyncio.Lock] = {}

    async def get(self, key: Hashable, compute: Callable[[Reader], Awaitable[Mapping[str, Json]]]) -> dict[str, Json]:
        """Return the cached report, or compute it if there is none or it has expired."""
        found = await self._get(key, compute)
        position = min(cast("int", found.document["position"]), found.progress.anchor.position)
        return {**found.document, "position": position, "lag_seconds": await self._views.lag(found.progress)}

    async def _get(self, key: Hashable, compute: Callable[[Reader], Awaitable[Mapping[str, Json]]]) -> _CachedReport:
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            kept = self._reports.get(key)
            begun = time.monotonic()
            if kept is not None and begun < kept.until:
                return kept
            views = _ViewsOfReport(self._views)
            try:
                document = await compute(views.read)
            except BaseException:
                if key not in self._reports:
                    self._locks.pop(key, None)
                raise
            now = time.monotonic()
            made = _CachedReport(document, views.progress(), now + max(_MIN_SECONDS, _COMPUTING_TIMES * (now - begun)))
            self._reports[key] = made
            self._reports.move_to_end(key)
            while len(self._reports) > _CAPACITY:
                old, _ = self._reports.popitem(last=False)
                self._locks.pop(old, None)
            return made
