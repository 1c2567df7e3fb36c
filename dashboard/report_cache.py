"""A cache of reports: computed once for simultaneous requests, and kept for a short time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

_KEPT = 64
_AT_LEAST_SECONDS, _TIMES_AS_LONG = 0.3, 4.0
"""A report is kept for at least this many seconds, or for this multiple of its computing time, if longer."""


class _Made(NamedTuple):
    document: dict[str, Any]
    until: float


class ReportCache:
    """Reports by key; each shows its age by its position."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, _Made] = OrderedDict()
        self._making: dict[Hashable, asyncio.Lock] = {}

    async def give(self, key: Hashable, make: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Return the cached report, or compute it if there is none or it has expired."""
        lock = self._making.setdefault(key, asyncio.Lock())
        async with lock:
            kept = self._made.get(key)
            begun = time.monotonic()
            if kept is not None and begun < kept.until:
                return kept.document
            document = await make()
            now = time.monotonic()
            self._made[key] = _Made(document, now + max(_AT_LEAST_SECONDS, _TIMES_AS_LONG * (now - begun)))
            self._made.move_to_end(key)
            while len(self._made) > _KEPT:
                old, _ = self._made.popitem(last=False)
                self._making.pop(old, None)
            return document
