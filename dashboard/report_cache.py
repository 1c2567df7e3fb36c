"""A cache of reports: computed once for simultaneous requests, and kept for a short time or until its views read on."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple, cast
from weakref import WeakValueDictionary

from fastapi import Response

from dashboard.schemas import JsonResponse
from dashboard.view_reader import NotReadyError
from domain.serialization import Json, encode
from ledger.errors import UnavailableError
from ledger.store.subscription import ReadCursor

if TYPE_CHECKING:
    import sqlalchemy as sa

    from dashboard.auth.tokens import Principal
    from dashboard.view_reader import ViewReader
    from projections.engine.storage import Progress
    from projections.reading import Reader, ReadResult

type Compute = Callable[[Reader], Awaitable[Mapping[str, Json]]]
_CAPACITY = 128
_THREADS = ThreadPoolExecutor(4, "reports")
"""Apart from those in which lists are read, so that these do not wait behind reports."""
_THREADS_OF_ONE = 2
"""The most reports of one principal that are computed at a time, so that others find a thread."""
_RENEWING = ThreadPoolExecutor(1, "renewed reports")
_MIN_SECONDS, _COMPUTING_TIMES = 0.3, 4.0
"""A report is kept for at least this many seconds, or for this multiple of its computing time, if longer."""
_MOST_SECONDS = 5.0
"""The longest that a report is kept where its views have read further, unless it is renewed."""
_OLDER_SECONDS, _OLDER_TIMES = 60.0, 60.0
"""A renewed report is served for at most these seconds, or for this multiple of its computing time, if shorter."""
_SLOW_SECONDS = 0.15
"""A report is renewed where it takes longer than this to compute."""
_ASKED_SECONDS = 72 * 3600.0
"""A report is renewed for this long after its last reader: from a Friday until the Monday."""
_SHARE = 0.25
"""The most of one core that renewing takes."""
_LOOK_SECONDS = 0.5


class ReportRequest(NamedTuple):
    """A report that is asked for: its key, and the function that computes it.

    ``inputs`` are all things that the report depends on beside its views and its key, such as the policy in force.
    ``turn`` lets one report be computed at a time.
    """

    key: Hashable
    compute: Compute
    inputs: Hashable = None
    turn: AbstractAsyncContextManager[None] | None = None


type Renew = Callable[[], Awaitable[ReportRequest]]
"""Returns the request of a report again, with the inputs of that moment."""


class _CachedReport:
    """A report, the progress of its views, the time until which it is kept in any case, and its tag."""

    def __init__(
        self,
        request: ReportRequest,
        renew: Renew | None,
        made: _Document,
        views: _ViewsOfReport,
        took_seconds: float,
        asked_at: float | None = None,
    ) -> None:
        self.inputs, self.document, self.tag = request.inputs, made.content, made.tag
        self.progress, self.cursors = views.progress(), views.cursors()
        self.made_at, self.took_seconds = time.monotonic(), took_seconds
        self.until = self.made_at + max(_MIN_SECONDS, min(_COMPUTING_TIMES * took_seconds, _MOST_SECONDS))
        self.renew = renew
        self.asked_at = asked_at or self.made_at

    def was_asked_for(self) -> bool:
        """Return whether the report has had a reader of late."""
        return time.monotonic() - self.asked_at < _ASKED_SECONDS

    def is_renewed(self) -> bool:
        """Return whether the report is computed again before its reader has to wait."""
        return self.renew is not None and self.took_seconds > _SLOW_SECONDS and self.was_asked_for()

    def older_seconds(self) -> float:
        """Return the longest that the report is served where its views have read further."""
        return min(_OLDER_SECONDS, _OLDER_TIMES * self.took_seconds)


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

    So the reader of a kept report sees that the views have read further since. Reports are computed in threads of their
    own, with their own event loops: figures of a long history take a second, in which this event loop answers other
    requests.

    A slow report of the present is renewed: it is served at once, also where its views have read further, and computed
    again in the background (as ``stale-while-revalidate``, RFC 5861).
    """

    def __init__(self, views: ViewReader) -> None:
        self._views = views
        self._reports: dict[Hashable, _CachedReport] = {}
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def get(self, viewer: Principal, request: ReportRequest, renew: Renew | None = None) -> dict[str, Json]:
        """Return the kept report, or compute it if there is none or it is too old; with ``renew`` it may be older."""
        return await self._sent(await self._get(viewer, request, renew))

    async def answer(
        self, viewer: Principal, request: ReportRequest, known: str | None, renew: Renew | None = None
    ) -> Response:
        """Return the report as a response with an ETag; 304 where ``known`` is the tag of the same figures."""
        found = await self._get(viewer, request, renew)
        headers = {"ETag": found.tag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
        if known == found.tag:
            return Response(status_code=304, headers=headers)
        return JsonResponse(await self._sent(found), headers=headers)

    async def _sent(self, found: _CachedReport) -> dict[str, Json]:
        position = min(cast("int", found.document["position"]), found.progress.anchor.position)
        return {**found.document, "position": position, "lag_seconds": await self._views.lag(found.progress)}

    async def _get(self, viewer: Principal, request: ReportRequest, renew: Renew | None) -> _CachedReport:
        found = await self._usable(request, renew)
        if found is None:
            turn = self._turns.setdefault(
                viewer.person_id or viewer.name, asyncio.Semaphore(_THREADS_OF_ONE)
            )  # before the lock: another reader of the same report does not wait for this one's turn
            async with turn:
                found = await self._computed(request, renew, _THREADS)
        found.asked_at = time.monotonic()
        return found

    async def _usable(self, request: ReportRequest, renew: Renew | None) -> _CachedReport | None:
        """Return the kept report where it is new enough."""
        kept = self._reports.get(request.key)
        if kept is None or kept.inputs != request.inputs:
            return None
        now = time.monotonic()
        may_be_older = renew is not None and kept.is_renewed() and now < kept.made_at + kept.older_seconds()
        if now < kept.until or may_be_older or await self._is_current(kept, {}):
            return kept
        return None

    async def _computed(
        self, request: ReportRequest, renew: Renew | None, threads: ThreadPoolExecutor
    ) -> _CachedReport:
        """Return the report, computed by this caller or by one before it."""
        lock = self._locks.setdefault(request.key, asyncio.Lock())
        async with lock:
            if (kept := await self._usable(request, renew)) is not None:
                return kept
            return await self._compute(request, renew, threads)

    async def _compute(
        self, request: ReportRequest, renew: Renew | None, threads: ThreadPoolExecutor, asked_at: float | None = None
    ) -> _CachedReport:
        views = _ViewsOfReport(self._views)
        async with request.turn or nullcontext():
            begun = time.monotonic()
            document = await asyncio.get_running_loop().run_in_executor(threads, _document, request.compute, views)
        made = _CachedReport(request, renew, document, views, time.monotonic() - begun, asked_at)
        kept = {key: one for key, one in self._reports.items() if key != request.key and one.was_asked_for()}
        while len(kept) >= _CAPACITY:
            del kept[min(kept, key=lambda key: kept[key].asked_at)]
        self._reports = {**kept, request.key: made}
        return made

    async def _is_current(self, kept: _CachedReport, read: dict[str, ReadCursor]) -> bool:
        """Return whether no view of a report has read further since; ``read`` keeps the places of views."""
        for name, cursor in kept.cursors.items():
            if name not in read:
                read[name] = (await self._views.read(name, lambda _connection: None, short=True)).progress.anchor
            if read[name] != cursor:
                return False
        return True

    async def prepare(self, renew: Renew) -> None:
        """Compute a report before its first reader asks for it."""
        request = await renew()
        made = await self._compute(request, renew, _RENEWING)
        await _rest(made.took_seconds)

    async def keep_renewed(self) -> None:
        """Compute slow reports again before their readers have to wait, one at a time; runs for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if (key := await self._due()) is not None:
                await self._renew(key)

    async def _due(self) -> Hashable | None:
        """Return the key of the oldest report that has to be computed again."""
        now, read = time.monotonic(), dict[str, ReadCursor]()
        for key, one in sorted(self._reports.items(), key=lambda item: item[1].made_at):
            is_old = now > one.made_at + one.older_seconds() / 2
            with suppress(NotReadyError):  # a view is built anew: the others go on
                if is_old and one.is_renewed() and not await self._is_current(one, read):
                    return key
        return None

    async def _renew(self, key: Hashable) -> None:
        """Compute a report again; drop it where that fails by an error of ours, so that its next reader is told.

        Raises:
            UnavailableError: the server does not answer; the report is kept, and computed later.

        """
        old = self._reports.get(key)
        if old is None or old.renew is None:  # dropped meanwhile
            return
        try:
            request = await old.renew()
            lock = self._locks.setdefault(request.key, asyncio.Lock())
            async with lock:
                made = await self._compute(request, old.renew, _RENEWING, old.asked_at)
        except NotReadyError:  # a view is built anew; the report is kept, and computed later
            return
        except UnavailableError:
            raise
        except BaseException:
            self._reports.pop(key, None)
            raise
        if request.key != key:
            self._reports.pop(key, None)
        await _rest(made.took_seconds)


async def _rest(took_seconds: float) -> None:
    """Wait until computing has taken no more than its share of a core."""
    await asyncio.sleep(took_seconds * (1 / _SHARE - 1))


class _Document(NamedTuple):
    """The content of a report, and its tag."""

    content: Mapping[str, Json]
    tag: str


def _document(compute: Compute, views: _ViewsOfReport) -> _Document:
    """Return a report, computed in an event loop of its own: its queries run in this thread."""

    async def computed() -> Mapping[str, Json]:
        return await compute(views.read)

    content = asyncio.run(computed())
    return _Document(content, _tag_of(content))


def _tag_of(document: Mapping[str, Json]) -> str:
    """Return the tag of a report: equal figures have equal tags, also from another process.

    It is weak (RFC 9110, 8.8.1), because answers with equal figures may have another `lag_seconds`.
    """
    return f'W/"{hashlib.blake2b(encode(document), digest_size=16).hexdigest()}"'
