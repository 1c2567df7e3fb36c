"""Pull messages from a JetStream consumer in large requests, and detect that it is silent."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, NamedTuple

from ledger.errors import UnavailableError
from ledger.nats.client import status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    from ledger.nats.client import LedgerClient

SECOND_NS = 1_000_000_000
_HEARTBEAT_SECONDS = 1
EXPIRES_SECONDS = 30
GATHER_SECONDS, GATHERED_SECONDS = 0.05, 0.1
"""Seconds that a pull waits for one more announced message, and for all of them."""


class PulledMessage(NamedTuple):
    """A message as received: its subject, its acknowledgement subject, its raw headers and its payload."""

    subject: bytes
    reply: bytes
    headers: bytes
    data: bytes


class PullConsumer[T]:
    """Keeps one pull request open at the consumer and returns messages, each converted by ``convert``.

    ``next`` raises ``UnavailableError`` if the consumer is gone or its heartbeats stop; create a new one then.
    """

    def __init__(
        self,
        client: LedgerClient,
        stream: str,
        consumer: str,
        request_size: int,
        convert: Callable[[bytes, bytes, bytes, bytes], T],
    ) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._request_size = request_size
        self._convert = convert
        self._buffer: list[T] = []
        self._wake = asyncio.Event()
        self._outstanding = 0
        self._last_reply = b".0"  # its last token is the number of pending messages
        self._failure = ""
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Subscribe."""
        self._subscription = await self._client.subscribe_raw(self._client.new_inbox(), self._on_message)

    async def next(self, at_most: int) -> list[T]:
        """Wait for messages and return at least one; empty now and then while there are none.

        Raises:
            UnavailableError: the consumer is gone or silent.
        """
        if self._outstanding <= 0 and len(self._buffer) < at_most:
            await self._request_messages()
        if not self._buffer and not self._failure and not await next_signal(self._wake, 3 * _HEARTBEAT_SECONDS):
            self._failure = "no heartbeat"
        started_at = time.monotonic()
        while len(self._buffer) < at_most and self._more_is_coming():
            seconds_left = started_at + GATHERED_SECONDS - time.monotonic()  # a busy log always announces more
            if seconds_left <= 0 or not await next_signal(self._wake, min(seconds_left, GATHER_SECONDS)):
                break
        if not self._buffer and self._failure:
            raise UnavailableError(self._failure)
        if len(self._buffer) <= at_most:
            batch, self._buffer = self._buffer, []
        else:
            batch, self._buffer = self._buffer[:at_most], self._buffer[at_most:]
        return batch

    def _more_is_coming(self) -> bool:
        """Return whether the server has more for this request, so that a larger batch costs no waiting."""
        return self._outstanding > 0 and not self._failure and not self._last_reply.endswith(b".0")

    def left(self) -> list[T]:
        """Return the buffered messages that ``next`` has not returned."""
        buffered, self._buffer = self._buffer, []
        return buffered

    async def stop(self) -> None:
        """Unsubscribe; messages that were not returned remain with the consumer."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._client.is_closed:
            await self._client.unsubscribe_raw(subscription)

    async def _request_messages(self) -> None:
        assert self._subscription is not None
        self._outstanding = self._request_size
        request = {
            "batch": self._request_size,
            "expires": EXPIRES_SECONDS * SECOND_NS,
            "idle_heartbeat": _HEARTBEAT_SECONDS * SECOND_NS,
        }
        await self._client.publish(self._subject, json.dumps(request).encode(), reply=self._subscription.subject)

    def _on_message(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        if reply.startswith(b"$JS.ACK."):
            self._outstanding -= 1
            self._last_reply = reply
            self._buffer.append(self._convert(subject, reply, headers, data))
        else:
            status = status_of(headers)
            if status == b"408":
                self._outstanding = 0
            elif status != b"100":
                self._failure = headers.decode(errors="replace").strip()
        if not self._wake.is_set():
            self._wake.set()


async def next_signal(event: asyncio.Event, seconds: float) -> bool:
    """Clear an event and wait until it is set again; return False after a time-out."""
    event.clear()
    is_late = False

    def on_timeout() -> None:
        nonlocal is_late
        is_late = not event.is_set()
        event.set()

    timer = asyncio.get_running_loop().call_later(seconds, on_timeout)  # a fraction of the calls of `wait_for`
    try:
        await event.wait()
    finally:
        timer.cancel()
    return not is_late


def parse_ack(reply: bytes) -> tuple[bytes, int, int, bytes]:
    """Return stream, stream sequence, consumer sequence and time stamp from a message's acknowledgement subject."""
    tokens = reply.split(b".")  # $JS.ACK.<stream>.<consumer>.<tries>.<stream seq>.<consumer seq>.<time>.<pending>
    return tokens[-7], int(tokens[-4]), int(tokens[-3]), tokens[-2]
