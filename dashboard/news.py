"""News of views, from NATS to whoever listens; who is slow misses some, and never holds up the others."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from config import topology

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.connection import LedgerClient

type Heard = asyncio.Queue[tuple[str, int]]
_WAITING_AT_MOST = 256


class _News(msgspec.Struct):
    position: int


class News:
    """Start it; each listener has a queue of its own."""

    def __init__(self, client: LedgerClient) -> None:
        self._client = client
        self._listeners: set[Heard] = set()

    async def start(self) -> None:
        """Hear of every view."""
        await self._client.pour(f"{topology.VIEWS_SUBJECT}.*", self._hear)

    def _hear(self, subject: bytes, _reply: bytes, _headers: bytes, body: bytes) -> None:
        try:
            news = subject.rpartition(b".")[2].decode(), msgspec.json.decode(body, type=_News).position
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()  # the oldest: a later one of the same view says more
            queue.put_nowait(news)

    @contextmanager
    def listener(self) -> Iterator[Heard]:
        """A queue of (view, position), for as long as the context lasts."""
        queue: Heard = asyncio.Queue(_WAITING_AT_MOST)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
