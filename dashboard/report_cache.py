"""Reports over HTTP: made once for all who ask at about the same time, for a moment longer than they take."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

_KEPT = 64
_AT_LEAST_SECONDS, _TIMES_AS_LONG = 0.3, 4.0
"""A report is given again for so long after it was made, or for so many times as long as making it took."""


class _Made(NamedTuple):
    document: dict[str, Any]
    until: float


class ReportCache:
    """Documents that take long. What is given again says by its position how old it is."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, _Made] = OrderedDict()
        self._making: dict[Hashable, asyncio.Lock] = {}

    async def give(self, key: Hashable, make: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """The document; made now, where there is none that is young enough."""
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
