"""A cache of reports: computed once for simultaneous requests, and kept for a short time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from domain.serialization import Json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

_CAPACITY = 64
_MIN_SECONDS, _COMPUTING_TIMES = 0.3, 4.0
"""A report is kept for at least this many seconds, or for this multiple of its computing time, if longer."""


class _CachedReport(NamedTuple):
    document: Mapping[str, Json]
    until: float


class ReportCache:
    """Reports by key; each shows its age by its position."""

    def __init__(self) -> None:
        self._reports: OrderedDict[Hashable, _CachedReport] = OrderedDict()
        self._locks: dict[Hashable, asyncio.Lock] = {}

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[Mapping[str, Json]]]) -> Mapping[str, Json]:
        """Return the cached report, or compute it if there is none or it has expired."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            kept = self._reports.get(key)
            begun = time.monotonic()
            if kept is not None and begun < kept.until:
                return kept.document
            document = await compute()
            now = time.monotonic()
            self._reports[key] = _CachedReport(document, now + max(_MIN_SECONDS, _COMPUTING_TIMES * (now - begun)))
            self._reports.move_to_end(key)
            while len(self._reports) > _CAPACITY:
                old, _ = self._reports.popitem(last=False)
                self._locks.pop(old, None)
            return document
