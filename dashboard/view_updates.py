"""Server-sent events about changed views.

Events are broadcast at most five times a second, to listeners in groups. The event loop yields between groups, so
hundreds of listeners do not delay reads.
"""

from __future__ import annotations

import asyncio
import json
from itertools import cycle
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import StreamingResponse

from config import topology
from ledger.background_service import BackgroundService
from ledger.nats.incidents import report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Receive, Scope, Send

    from ledger.nats.client import LedgerClient

_TOGETHER_SECONDS = 0.2
_QUIET_SECONDS, _QUIET_TURNS = 1.0, 15
"""Without changes, listeners are woken every second to check their credential; each 15th time they get a comment."""
_GROUPS = 20
"""Listeners are woken group by group."""
_STILL_HERE = b": still here\n\n"


class _News(msgspec.Struct):
    position: int


class ViewUpdates(BackgroundService):
    """The positions of all views, broadcast to listeners.

    A slow subscriber misses events and then gets the newest position of each view. It never slows down others.
    """

    def __init__(self, client: LedgerClient) -> None:
        super().__init__("view updates")
        self._client = client
        self._positions: dict[str, int] = {}
        self._changed: set[str] = set()
        self._stirred = asyncio.Event()
        self._told = [asyncio.Event() for _ in range(_GROUPS)]
        self._groups = cycle(range(_GROUPS))
        self._turn, self._chunk = 0, b""
        self._quiet = 0

    async def start(self) -> None:
        """Subscribe to the changes of every view, and start to broadcast."""
        await self._client.subscribe_raw(f"{topology.VIEWS_SUBJECT}.*", self._hear)
        self.spawn(self._tell())

    def _hear(self, subject: bytes, _reply: bytes, _headers: bytes, body: bytes) -> None:
        try:
            view, position = subject.rpartition(b".")[2].decode(), msgspec.json.decode(body, type=_News).position
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        self._positions[view] = position
        self._changed.add(view)
        self._stirred.set()

    async def _tell(self) -> None:
        while True:
            try:
                await self._tell_all()
            except Exception as error:  # noqa: BLE001 - an internal error delays events, and does not end them
                report("changed views could not be broadcast", error, error)
            await asyncio.sleep(_TOGETHER_SECONDS)  # changes in between are sent together

    async def _tell_all(self) -> None:
        """Wait for changes, then wake all listeners; without changes, wake them after a second."""
        try:
            await asyncio.wait_for(self._stirred.wait(), _QUIET_SECONDS)
        except TimeoutError:
            self._quiet += 1
            self._chunk = b"" if self._quiet % _QUIET_TURNS else _STILL_HERE
        else:
            self._quiet = 0
            self._chunk = self._said(self._changed)
            self._changed = set()
            self._stirred.clear()
        self._turn += 1
        for group, told in enumerate(self._told):
            self._told[group] = asyncio.Event()
            told.set()
            await asyncio.sleep(0)  # other requests run between two groups

    def _said(self, views: set[str]) -> bytes:
        return b"".join(said(view, self._positions[view]) for view in sorted(views))

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield server-sent events without end, at least one chunk a second; a chunk may be empty.

        A listener that missed a broadcast gets the position of every view.
        """
        turn, group = self._turn, next(self._groups)
        while True:
            while turn == self._turn:
                await self._told[group].wait()
            missed = self._turn - turn > 1
            turn = self._turn
            yield self._said(set(self._positions)) if missed else self._chunk


class EventStream(StreamingResponse):
    """A response of server-sent events to one listener; ``release`` is called at its end."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], release: Callable[[], None], status_code: int = 200) -> None:
        super().__init__(chunks, status_code, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


def said(view: str, position: int) -> bytes:
    """Return the server-sent event that a view is at a position."""
    return f"id: {position}\nevent: view\ndata: {json.dumps({'view': view, 'position': position})}\n\n".encode()
