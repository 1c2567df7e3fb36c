"""News of views, from NATS to whoever listens; said to all at once, some times a second, however busy the log is."""

from __future__ import annotations

import asyncio
import json
from itertools import cycle
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import StreamingResponse

from config import topology
from ledger.nats.incidents import report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Receive, Scope, Send

    from ledger.nats.client import LedgerClient

_TOGETHER_SECONDS = 0.2
_QUIET_SECONDS, _QUIET_TURNS = 1.0, 15
"""Without news, listeners have a turn every second, to see whether they may still listen; they hear every 15th."""
_GROUPS = 20
"""Listeners are told group by group."""
_STILL_HERE = b": still here\n\n"


class _News(msgspec.Struct):
    position: int


class ViewUpdates:
    """Start it; every listener is told the same, and who is slow hears the newest of each view and no more."""

    def __init__(self, client: LedgerClient) -> None:
        self._client = client
        self._positions: dict[str, int] = {}
        self._changed: set[str] = set()
        self._stirred = asyncio.Event()
        self._told = [asyncio.Event() for _ in range(_GROUPS)]
        self._groups = cycle(range(_GROUPS))
        self._turn, self._chunk = 0, b""
        self._quiet = 0
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Hear of every view."""
        await self._client.subscribe_raw(f"{topology.VIEWS_SUBJECT}.*", self._hear)
        self._telling = asyncio.create_task(self._tell())

    async def stop(self) -> None:
        """Say nothing more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)

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
            except Exception as error:  # noqa: BLE001 - an error of ours delays news, and does not end them
                report("news of views could not be told", error, error)
            await asyncio.sleep(_TOGETHER_SECONDS)  # what comes meanwhile is said together

    async def _tell_all(self) -> None:
        """Wait for news, and tell all listeners; without news for a while, give them a turn."""
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
            await asyncio.sleep(0)  # hundreds listen: whoever asks something else has a turn between them

    def _said(self, views: set[str]) -> bytes:
        return b"".join(said(view, self._positions[view]) for view in sorted(views))

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield server-sent events, for ever, at least one a second; empty ones only give a turn.

        A listener that missed a turn is told where every view is.
        """
        turn, group = self._turn, next(self._groups)
        while True:
            while turn == self._turn:
                await self._told[group].wait()
            missed = self._turn - turn > 1
            turn = self._turn
            yield self._said(set(self._positions)) if missed else self._chunk


class EventStream(StreamingResponse):
    """Server-sent events to one listener; ``release`` is called when they end, however they do."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], release: Callable[[], None], status_code: int = 200) -> None:
        super().__init__(chunks, status_code, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


def said(view: str, position: int) -> bytes:
    """One event: a view is at a position."""
    return f"id: {position}\nevent: view\ndata: {json.dumps({'view': view, 'position': position})}\n\n".encode()
