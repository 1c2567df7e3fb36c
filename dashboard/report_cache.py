"""A cache of reports: computed once for simultaneous requests, and kept for a short time or until its views read on."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple, cast

from fastapi import Response

from dashboard.schemas import JsonResponse
from domain.serialization import Json, encode
from ledger.store.subscription import ReadCursor
from projections.engine.storage import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from contextlib import AbstractAsyncContextManager

    import sqlalchemy as sa

    from dashboard.view_reader import ViewReader
    from projections.reading import Reader, ReadResult

    type Compute = Callable[[Reader], Awaitable[Mapping[str, Json]]]

_CAPACITY = 64
_THREADS = ThreadPoolExecutor(4, "reports")
"""Apart from those in which lists are read, so that these do not wait behind reports."""
_MIN_SECONDS, _COMPUTING_TIMES = 0.3, 4.0
"""A report is kept for at least this many seconds, or for this multiple of its computing time, if longer."""
_MOST_SECONDS = 5.0
"""The longest that a report is kept where its views have read further."""


class _CachedReport(NamedTuple):
    """A report, the progress of its views, the time until which it is kept in any case, and its tag."""

    document: Mapping[str, Json]
    progress: Progress
    cursors: Mapping[str, ReadCursor]
    """The place up to which each view had read the log."""
    until: float
    tag: str


class _ViewsOfReport:
    """Reads the views of one report, and notes the progress of the view that has read least."""

    def __init__(self, views: ViewReader) -> None:
        self._views, self._loop = views, asyncio.get_running_loop()
        self._read: list[tuple[str, Progress]] = []

    async def read[T](self, name: str, query: Callable[[sa.Connection], T], /) -> ReadResult[T]:
        """Return the result of a query on a view, which runs in this thread."""
        answer = self._views.read_in_this_thread(name, query, self._loop)
        self._read.append((name, answer.progress))
        return answer

    def progress(self) -> Progress:
        """Return the lowest progress."""
        return min((one for _, one in self._read), key=lambda one: one.anchor.position)

    def cursors(self) -> dict[str, ReadCursor]:
        """Return the lowest place up to which each view had read the log."""
        found: dict[str, ReadCursor] = {}
        for name, progress in self._read:
            found[name] = min(found.get(name, progress.anchor), progress.anchor)
        return found


class ReportCache:
    """Reports by key. Each has the lowest position of the views behind it, and its lag when it is sent.

    So the reader of a kept report sees that the views have read further since. The key has all that a report depends on
    beside its views, such as the policy in force.

    Reports are computed in threads of their own, with their own event loops: figures of a long history take a second,
    in which this event loop answers other requests.
    """

    def __init__(self, views: ViewReader, turn: AbstractAsyncContextManager[None] | None = None) -> None:
        """``turn`` lets one report be computed at a time."""
        self._views, self._turn = views, turn or nullcontext()
        self._reports: OrderedDict[Hashable, _CachedReport] = OrderedDict()
        self._locks: dict[Hashable, asyncio.Lock] = {}

    async def get(self, key: Hashable, compute: Compute) -> dict[str, Json]:
        """Return the cached report, or compute it if there is none or it has expired."""
        return await self._sent(await self._get(key, compute))

    async def answer(self, key: Hashable, compute: Compute, known: str | None) -> Response:
        """Return the report as a response with an ETag; 304 where ``known`` is the tag of the same figures."""
        found = await self._get(key, compute)
        headers = {"ETag": found.tag, "Cache-Control": "no-cache", "Vary": "Authorization, Cookie"}
        if known == found.tag:
            return Response(status_code=304, headers=headers)
        return JsonResponse(await self._sent(found), headers=headers)

    async def _sent(self, found: _CachedReport) -> dict[str, Json]:
        position = min(cast("int", found.document["position"]), found.progress.anchor.position)
        return {**found.document, "position": position, "lag_seconds": await self._views.lag(found.progress)}

    async def _get(self, key: Hashable, compute: Compute) -> _CachedReport:
        """Return the cached report if it is current, else compute it."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            kept = self._reports.get(key)
            if kept is not None and (time.monotonic() < kept.until or await self._is_current(kept)):
                self._reports.move_to_end(key)
                return kept
            begun = time.monotonic()
            views = _ViewsOfReport(self._views)
            try:
                async with self._turn:
                    document = await asyncio.get_running_loop().run_in_executor(_THREADS, _computed, compute, views)
            except BaseException:
                if key not in self._reports:
                    self._locks.pop(key, None)
                raise
            now = time.monotonic()
            until = now + max(_MIN_SECONDS, min(_COMPUTING_TIMES * (now - begun), _MOST_SECONDS))
            made = _CachedReport(document, views.progress(), views.cursors(), until, _tag_of(document))
            self._reports[key] = made
            self._reports.move_to_end(key)
            while len(self._reports) > _CAPACITY:
                old, _ = self._reports.popitem(last=False)
                self._locks.pop(old, None)
            return made

    async def _is_current(self, kept: _CachedReport) -> bool:
        """Return whether no view of a report has read further since."""
        for name, cursor in kept.cursors.items():
            now = await self._views.read(name, lambda _connection: None, short=True)
            if now.progress.anchor != cursor:
                return False
        return True


def _computed(compute: Compute, views: _ViewsOfReport) -> Mapping[str, Json]:
    """Return a report, computed in an event loop of its own: its queries run in this thread."""

    async def computed() -> Mapping[str, Json]:
        return await compute(views.read)

    return asyncio.run(computed())


def _tag_of(document: Mapping[str, Json]) -> str:
    """Return the tag of a report: equal figures have equal tags, also from another process."""
    return f'"{hashlib.blake2b(encode(document), digest_size=16).hexdigest()}"'
