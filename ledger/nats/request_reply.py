"""Requests whose answers are passed to a function while the socket is read; they share one subscription."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ledger.nats.client import frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.nats.client import LedgerClient

    ReplyHandler = Callable[[bytes, bytes], None]
    """Called with the raw headers (empty: none) and the payload of an answer."""


_AGAIN_SECONDS = 0.5


class RequestReply:
    """The inbox for answers on one connection."""

    def __init__(self, client: LedgerClient) -> None:
        """Use ``open``."""
        self.client = client
        self._inbox = client.new_inbox().encode() + b"."
        self._handlers: dict[bytes, ReplyHandler] = {}
        self._tokens = 0

    @classmethod
    async def open(cls, client: LedgerClient) -> RequestReply:
        """Subscribe to the inbox, until the connection ends."""
        replies = cls(client)
        await client.subscribe_raw(replies._inbox.decode() + "*", replies.on_reply)
        return replies

    def new_reply_subject(self, on_reply: ReplyHandler) -> bytes:
        """Return a reply subject whose messages go to ``on_reply``, until ``release``."""
        self._tokens += 1
        subject = self._inbox + b"%d" % self._tokens
        self._handlers[subject] = on_reply
        return subject

    def release(self, subject: bytes) -> None:
        """Drop further messages of a reply subject."""
        self._handlers.pop(subject, None)

    async def request(self, subject: bytes, payload: bytes, seconds: float) -> tuple[bytes, bytes]:
        """Send an idempotent request, and return the raw headers and payload of the first answer.

        It is repeated twice a second, since requests are lost with a server that ends.

        Raises:
            TimeoutError: no answer in time.
            nats.errors.Error: the request cannot be sent.
        """
        future: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        reply_to = self.new_reply_subject(resolve_with(future))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self.client.send(frame(subject, payload, reply_to))
                    await asyncio.wait((future,), timeout=_AGAIN_SECONDS)
                    if future.done():
                        return future.result()
        finally:
            self.release(reply_to)

    def on_reply(self, subject: bytes, _reply: bytes, headers: bytes, data: bytes) -> None:
        """Pass an answer to its handler; this is the sink of the subscription."""
        take = self._handlers.get(subject)
        if take is not None:
            take(headers, data)


def resolve_with(future: asyncio.Future[tuple[bytes, bytes]]) -> ReplyHandler:
    """Return a handler that sets the first answer as a future's result."""

    def on_reply(headers: bytes, data: bytes) -> None:
        if not future.done():
            future.set_result((headers, data))

    return on_reply


def header_of(headers: bytes, name: bytes) -> bytes | None:
    """Return a header's value in raw headers. The server adds its own last, so that the last one counts."""
    start = headers.rfind(b"\r\n" + name + b": ")
    if start < 0:
        return None
    start += len(name) + 4
    return headers[start : headers.index(b"\r\n", start)]
