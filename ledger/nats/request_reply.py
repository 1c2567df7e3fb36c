"""Requests whose answers go to a function as the socket is read; one subscription for all of them."""

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
    """The inbox of one user of a connection."""

    def __init__(self, client: LedgerClient) -> None:
        """Use ``open``."""
        self.client = client
        self._inbox = client.new_inbox().encode() + b"."
        self._taking: dict[bytes, ReplyHandler] = {}
        self._tokens = 0

    @classmethod
    async def open(cls, client: LedgerClient) -> RequestReply:
        """Begin to listen; it ends with the connection."""
        replies = cls(client)
        await client.subscribe_raw(replies._inbox.decode() + "*", replies.on_reply)
        return replies

    def new_reply_subject(self, take: ReplyHandler) -> bytes:
        """A reply subject whose messages go to ``take``, until ``release``."""
        self._tokens += 1
        subject = self._inbox + b"%d" % self._tokens
        self._taking[subject] = take
        return subject

    def release(self, subject: bytes) -> None:
        """What still comes to a reply subject is dropped."""
        self._taking.pop(subject, None)

    async def request(self, subject: bytes, payload: bytes, seconds: float) -> tuple[bytes, bytes]:
        """Ask for something that is only read, and wait for one answer: its raw headers and payload.

        It is asked again every second, and the first answer counts: a server that ends takes questions with it.

        Raises:
            TimeoutError: none came in time.
            nats.errors.Error: it cannot be sent.

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
        """The sink."""
        take = self._taking.get(subject)
        if take is not None:
            take(headers, data)


def resolve_with(future: asyncio.Future[tuple[bytes, bytes]]) -> ReplyHandler:
    """A function that gives the first answer to a future."""

    def take(headers: bytes, data: bytes) -> None:
        if not future.done():
            future.set_result((headers, data))

    return take


def header_of(headers: bytes, name: bytes) -> bytes | None:
    """A header's value in raw headers. The server puts its own last, so the last one counts."""
    start = headers.rfind(b"\r\n" + name + b": ")
    if start < 0:
        return None
    start += len(name) + 4
    return headers[start : headers.index(b"\r\n", start)]
