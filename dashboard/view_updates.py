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

_BROADCAST_SECONDS = 0.2
_IDLE_SECONDS, _KEEPALIVE_ROUNDS = 1.0, 15
"""Without changes, listeners are woken every second to check their credential; each 15th time they get a comment."""
_GROUPS = 20
"""Listeners are woken group by group."""
_KEEPALIVE = b": still here\n\n"


class _ViewChange(msgspec.Struct):
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
        self._has_changes = asyncio.Event()
        self._group_events = [asyncio.Event() for _ in range(_GROUPS)]
        self._groups = cycle(range(_GROUPS))
        self._round, self._chunk = 0, b""
        self._idle_rounds = 0

    async def start(self) -> None:
        """Subscribe to the changes of every view, and start to broadcast."""
        await self._client.subscribe_raw(f"{topology.VIEWS_SUBJECT}.*", self._receive)
        self.spawn(self._broadcast_for_ever())

    def _receive(self, subject: bytes, _reply: bytes, _headers: bytes, body: bytes) -> None:
        try:
            view, position = subject.rpartition(b".")[2].decode(), msgspec.json.decode(body, type=_ViewChange).position
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        self._positions[view] = position
        self._changed.add(view)
        self._has_changes.set()

    async def _broadcast_for_ever(self) -> None:
        while True:
            try:
                await self._broadcast()
            except Exception as error:  # noqa: BLE001 - an internal error delays events, and does not end them
                report("changed views could not be broadcast", error, error)
            await asyncio.sleep(_BROADCAST_SECONDS)  # changes in between are sent together

    async def _broadcast(self) -> None:
        """Wait for changes, then wake all listeners; without changes, wake them after a second."""
        try:
            await asyncio.wait_for(self._has_changes.wait(), _IDLE_SECONDS)
        except TimeoutError:
            self._idle_rounds += 1
            self._chunk = b"" if self._idle_rounds % _KEEPALIVE_ROUNDS else _KEEPALIVE
        else:
            self._idle_rounds = 0
            self._chunk = self._events_of(self._changed)
            self._changed = set()
            self._has_changes.clear()
        self._round += 1
        for group, told in enumerate(self._group_events):
            self._group_events[group] = asyncio.Event()
            told.set()
            await asyncio.sleep(0)  # other requests run between two groups

    def _events_of(self, views: set[str]) -> bytes:
        return b"".join(view_event(view, self._positions[view]) for view in sorted(views))

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield server-sent events without end, at least one chunk a second; a chunk may be empty.

        A listener that missed a broadcast gets the position of every view.
        """
        turn, group = self._round, next(self._groups)
        while True:
            while turn == self._round:
                await self._group_events[group].wait()
            missed = self._round - turn > 1
            turn = self._round
            yield self._events_of(set(self._positions)) if missed else self._chunk


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


def view_event(view: str, position: int) -> bytes:
    """Return the server-sent event that a view is at a position."""
    return f"id: {position}\nevent: view\ndata: {json.dumps({'view': view, 'position': position})}\n\n".encode()
