"""Pulling messages from a JetStream consumer in large requests, noticing when it goes silent."""

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

_SECOND_NS = 1_000_000_000
_HEARTBEAT_SECONDS = 1
_EXPIRES_SECONDS = 30
_GATHER_SECONDS, _GATHERED_SECONDS = 0.05, 0.1
"""How long a pull waits for one more message of those that are said to come, and for all of them."""


class PulledMessage(NamedTuple):
    """A message as it came: its subject, where to acknowledge it, its raw headers, its bytes."""

    subject: bytes
    reply: bytes
    headers: bytes
    data: bytes


class PullConsumer[T]:
    """Keeps one request at the consumer and hands out what came, each message in the ``shape`` wanted.

    ``next`` raises ``UnavailableError`` when the consumer is gone or its heartbeats stay away; then make
    a new one.
    """

    def __init__(
        self,
        client: LedgerClient,
        stream: str,
        consumer: str,
        ask_for: int,
        shape: Callable[[bytes, bytes, bytes, bytes], T],
    ) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._ask_for = ask_for
        self._shape = shape
        self._buffer: list[T] = []
        self._wake = asyncio.Event()
        self._outstanding = 0
        self._last_reply = b".0"  # its last token counts the messages that wait behind it
        self._trouble = ""
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Begin to listen."""
        self._subscription = await self._client.subscribe_raw(self._client.new_inbox(), self._on_message)

    async def next(self, at_most: int) -> list[T]:
        """What has come, at least one message; waits for it. Empty now and then while nothing comes.

        Raises:
            UnavailableError: the consumer is gone, or silent.

        """
        if self._outstanding <= 0 and len(self._buffer) < at_most:
            await self._ask()
        if not self._buffer and not self._trouble and not await self._wait_for_wake(3 * _HEARTBEAT_SECONDS):
            self._trouble = "no heartbeat"
        begun = time.monotonic()
        while len(self._buffer) < at_most and self._more_is_coming():
            left = begun + _GATHERED_SECONDS - time.monotonic()  # on a busy log more is always coming
            if left <= 0 or not await self._wait_for_wake(min(left, _GATHER_SECONDS)):
                break
        if not self._buffer and self._trouble:
            raise UnavailableError(self._trouble)
        if len(self._buffer) <= at_most:
            batch, self._buffer = self._buffer, []
        else:
            batch, self._buffer = self._buffer[:at_most], self._buffer[at_most:]
        return batch

    async def _wait_for_wake(self, seconds: float) -> bool:
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _more_is_coming(self) -> bool:
        """Whether the server has more for this request: then a larger batch costs no waiting."""
        return self._outstanding > 0 and not self._trouble and not self._last_reply.endswith(b".0")

    def left(self) -> list[T]:
        """What has come and was not handed out."""
        left, self._buffer = self._buffer, []
        return left

    async def stop(self) -> None:
        """End listening; what was not handed out stays with the consumer."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._client.is_closed:
            await self._client.unsubscribe_raw(subscription)

    async def _ask(self) -> None:
        assert self._subscription is not None
        self._outstanding = self._ask_for
        request = {
            "batch": self._ask_for,
            "expires": _EXPIRES_SECONDS * _SECOND_NS,
            "idle_heartbeat": _HEARTBEAT_SECONDS * _SECOND_NS,
        }
        await self._client.publish(self._subject, json.dumps(request).encode(), reply=self._subscription.subject)

    def _on_message(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        if reply.startswith(b"$JS.ACK."):
            self._outstanding -= 1
            self._last_reply = reply
            self._buffer.append(self._shape(subject, reply, headers, data))
        else:
            status = status_of(headers)
            if status == b"408":
                self._outstanding = 0
            elif status != b"100":
                self._trouble = headers.decode(errors="replace").strip()
        if not self._wake.is_set():
            self._wake.set()


def ack_sequences(reply: bytes) -> tuple[int, int, bytes]:
    """Stream sequence, consumer sequence and time stamp in a message's acknowledgement subject."""
    tokens = reply.split(b".")  # $JS.ACK.<stream>.<consumer>.<tries>.<stream seq>.<consumer seq>.<time>.<pending>
    return int(tokens[-4]), int(tokens[-3]), tokens[-2]


def ack_stream(reply: bytes) -> bytes:
    """Return the stream's name in a message's acknowledgement subject."""
    return reply.split(b".")[-7]


def ack_stream_and_sequence(reply: bytes) -> tuple[str, int]:
    """Return the stream's name and the sequence there in a message's acknowledgement subject."""
    tokens = reply.split(b".")
    return tokens[-7].decode(), int(tokens[-4])
