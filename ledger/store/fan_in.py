"""Pull messages from one consumer on each of many streams, through one subscription, fairly."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import nats.errors

from ledger.nats.client import frame, status_of
from ledger.nats.request_reply import header_of
from ledger.store.pull_consumer import (
    EXPIRES_SECONDS,
    GATHER_SECONDS,
    GATHERED_SECONDS,
    SECOND_NS,
    PulledMessage,
    next_signal,
    parse_ack,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats.aio.subscription import Subscription

    from ledger.nats.client import LedgerClient

_HEARTBEATS_A_SECOND = 20
"""For all streams together."""
_SILENT_HEARTBEATS = 3
_AGAIN_SECONDS = 0.3
_RECENT = 10.0
_IDLE_SECONDS = 1.0
_FEWEST, _MOST = 64, 2000
_BYTES_TOGETHER = 32 * 1024 * 1024
"""Bytes in flight for all busy streams together; each stream may always have one message of the largest size."""
_BYTES_AT_LEAST = 128 * 1024
_ABSENT_SECONDS = 1.0
"""Seconds that a consumer may fail, for instance during the election of its leader, before it counts as gone."""


@dataclass(slots=True, eq=False)
class _Stream:
    """The buffered messages of one stream, and its pull request at the server."""

    name: str
    delivered: int  # consumer sequence of the last message, without a gap
    position: int = 0  # stream sequence of the last message
    lost: bool = False
    buffer: deque[PulledMessage] = field(default_factory=deque)
    size: int = _FEWEST  # of the next request; it grows while the stream is busy
    failing_since: float = 0.0
    request: int = 0  # number of the current request: the server reports the end of some earlier ones late
    outstanding: int = 0
    heard_at: float = 0.0
    rest_until: float = 0.0
    pending: bool = False  # whether the server has more for the request
    held: bool = False


class FanIn:
    """Returns messages of many streams in batches, in which each stream has a fair share.

    Requests are renewed after anything that ends them, such as a restart of the server or a new leader.

    The messages of a stream are returned in order and without a gap. If deliveries are missing (another reader took
    them, or they were lost with a server), the stream is ``lost``: none of its messages is returned until ``resume``.
    """

    def __init__(self, client: LedgerClient, consumer: str) -> None:
        self._client = client
        self._consumer = consumer
        self._streams: dict[str, _Stream] = {}
        self._inbox = client.new_inbox()
        self._streams_by_token: dict[bytes, _Stream] = {}
        self._wake = asyncio.Event()
        self._losses = asyncio.Event()
        self._turn = 0
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Subscribe."""
        self._subscription = await self._client.subscribe_raw(f"{self._inbox}.*.*", self._on_message)

    async def stop(self) -> None:
        """Unsubscribe; the next reader gets unacknowledged messages again (``ledger/store/handover.py``)."""
        if self._subscription is None or self._client.is_closed:
            return
        with suppress(nats.errors.Error):
            await self._client.unsubscribe_raw(self._subscription)

    def add(self, name: str, delivered: int) -> None:
        """Read another stream; ``delivered`` is the consumer sequence of its last delivery."""
        if name not in self._streams:
            stream = self._streams[name] = _Stream(name, delivered)
            self._streams_by_token[name.encode()] = stream
            self._wake.set()

    def remove(self, name: str) -> None:
        """Stop reading a stream, all of whose messages were returned and acknowledged."""
        if self._streams.pop(name, None) is not None:
            del self._streams_by_token[name.encode()]

    @property
    def streams(self) -> list[str]:
        """The names of the streams that are read."""
        return list(self._streams)

    async def lost(self) -> list[str]:
        """Wait until deliveries of a stream have a gap, or its consumer is gone; return the streams' names."""
        while not (names := [stream.name for stream in self._streams.values() if stream.lost]):
            self._losses.clear()
            await self._losses.wait()
        return names

    def lose(self, names: Iterable[str]) -> None:
        """Mark streams as lost until ``resume``, because messages that were returned will not be acknowledged."""
        for name in names:
            self._mark_lost(self._streams[name])

    def resume(self, name: str, delivered: int) -> None:
        """Read a stream again, from the new beginning of its consumer; ``delivered`` as for ``add``."""
        stream = self._streams[name]
        stream.delivered, stream.position, stream.lost = delivered, 0, False
        stream.outstanding, stream.rest_until, stream.failing_since = 0, 0.0, 0.0
        self._wake.set()

    def _mark_lost(self, stream: _Stream) -> None:
        stream.lost, stream.pending = True, False
        stream.buffer.clear()  # the server delivers these messages again
        self._losses.set()

    def hold(self, name: str, *, held: bool) -> None:
        """Pause or continue returning messages of a stream; its buffered messages are kept."""
        self._streams[name].held = held
        self._wake.set()

    async def next(self, at_most: int, idle_seconds: float = _IDLE_SECONDS) -> dict[str, list[PulledMessage]]:
        """Wait for messages and return a share of each stream that has some; empty after a time-out."""
        self._request_messages()
        if not self._ready_streams() and not await next_signal(self._wake, idle_seconds):
            return {}
        started_at = time.monotonic()
        while self._buffered_count() < at_most and any(
            stream.outstanding > 0 and stream.pending for stream in self._streams.values()
        ):
            seconds_left = started_at + GATHERED_SECONDS - time.monotonic()  # busy streams always announce more
            if seconds_left <= 0 or not await next_signal(self._wake, min(seconds_left, GATHER_SECONDS)):
                break
        return self._share(at_most)

    def _ready_streams(self) -> list[_Stream]:
        return [stream for stream in self._streams.values() if stream.buffer and not stream.held]

    def _buffered_count(self) -> int:
        return sum(len(stream.buffer) for stream in self._streams.values() if not stream.held)

    def _share(self, at_most: int) -> dict[str, list[PulledMessage]]:
        """Take from the streams in turn; a stream with few messages gives all of them."""
        ready = self._ready_streams()
        batch: dict[str, list[PulledMessage]] = {stream.name: [] for stream in ready}
        self._turn += 1
        start = self._turn % len(ready) if ready else 0
        ready = ready[start:] + ready[:start]
        messages_left = at_most
        while ready and messages_left > 0:
            share = max(1, messages_left // len(ready))
            for stream in ready:
                number = min(share, len(stream.buffer), messages_left)
                messages_left -= number
                batch[stream.name] += [stream.buffer.popleft() for _ in range(number)]
            ready = [stream for stream in ready if stream.buffer]
        return batch

    def _request_messages(self) -> None:
        """Send a pull request for each stream with buffer space."""
        now = time.monotonic()
        heartbeat = min(10, max(1, math.ceil(len(self._streams) / _HEARTBEATS_A_SECOND)))
        busy = sum(1 for stream in self._streams.values() if stream.size > _FEWEST) or 1
        frames: list[bytes] = []
        for stream in self._streams.values():
            if stream.outstanding > 0 and now - stream.heard_at > _SILENT_HEARTBEATS * heartbeat:
                stream.outstanding = 0  # the request was lost with its server or leader
            if stream.lost or stream.outstanding > 0 or len(stream.buffer) >= stream.size or now < stream.rest_until:
                continue
            stream.outstanding = stream.size
            stream.request += 1
            stream.heard_at, stream.pending = now, False
            max_bytes = _BYTES_AT_LEAST if stream.size == _FEWEST else max(_BYTES_AT_LEAST, _BYTES_TOGETHER // busy)
            body = json.dumps(
                {
                    "batch": stream.size,
                    "max_bytes": max_bytes,
                    "expires": EXPIRES_SECONDS * SECOND_NS,
                    "idle_heartbeat": heartbeat * SECOND_NS,
                }
            ).encode()
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream.name}.{self._consumer}"
            frames.append(frame(subject.encode(), body, f"{self._inbox}.{stream.name}.{stream.request}".encode()))
        if frames:
            try:
                self._client.send(b"".join(frames))
            except nats.errors.Error:  # the outbound buffer is full: try again later
                for stream in self._streams.values():
                    stream.outstanding, stream.rest_until = 0, now + _AGAIN_SECONDS

    def _on_message(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        if reply.startswith(b"$JS.ACK."):
            name, position, delivered, _ = parse_ack(reply)
            stream = self._streams_by_token.get(name)
            if stream is None or stream.lost:
                return
            if not self._is_next(stream, position, delivered):
                return
            stream.buffer.append(PulledMessage(subject, reply, headers, data))
            stream.position, stream.delivered = position, delivered
            stream.pending = not reply.endswith(b".0")
            stream.outstanding -= 1
            if stream.outstanding == 0:
                stream.size = min(_MOST, 4 * stream.size)
        else:
            _, name, number = subject.rsplit(b".", 2)
            stream = self._streams_by_token.get(name)
            if stream is None or number != b"%d" % stream.request:
                return
            self._note_status(stream, headers)
        stream.heard_at = time.monotonic()
        if not self._wake.is_set():
            self._wake.set()

    def _is_next(self, stream: _Stream, position: int, delivered: int) -> bool:
        """Return whether a delivery follows the last one.

        A new leader may renumber deliveries of the leader before: the sequence goes back, and no message is left out.
        """
        if delivered == stream.delivered + 1 or (delivered <= stream.delivered and position <= stream.position):
            return True
        self._mark_lost(stream)
        return False

    def _note_status(self, stream: _Stream, headers: bytes) -> None:
        """Handle a heartbeat, or the end of a request: expired, out of bytes, or an error of the consumer."""
        status = status_of(headers)
        if status == b"100":
            if int(header_of(headers, b"Nats-Last-Consumer") or 0) > stream.delivered:
                self._mark_lost(stream)
            stream.failing_since = 0.0
            return
        stream.outstanding, stream.pending = 0, False
        if status == b"408":
            stream.size = _FEWEST
        elif status == b"409" and (b"MaxBytes" in headers or b"Completed" in headers):
            stream.size = min(_MOST, 4 * stream.size)
        else:
            now = time.monotonic()
            stream.rest_until = now + _AGAIN_SECONDS
            stream.failing_since = stream.failing_since or now
            if b"Deleted" in headers or now - stream.failing_since > _ABSENT_SECONDS:
                self._mark_lost(stream)
