"""A NATS connection that writes frames by hand, as an attacker would, and reads the answers byte by byte."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit


class RawNats:
    """A context in which a raw connection is open; ``closed`` is set when the server ends it."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._inbox = b"_INBOX." + secrets.token_hex(8).encode()
        self._numbers = 0
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._pong: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.errors: list[bytes] = []
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._url.hostname, self._url.port, limit=2**22)
        await asyncio.wait_for(self._reader.readline(), 10)
        hello = {
            "user": self._url.username,
            "pass": self._url.password,
            "headers": True,
            "no_responders": True,
            "verbose": False,
            "lang": "raw",
            "version": "1",
        }
        self.write(b"CONNECT " + json.dumps(hello).encode() + b"\r\nSUB " + self._inbox + b".* 1\r\n")
        self._task = asyncio.create_task(self._read())
        await self.flush()
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._writer.transport.abort()  # what was written last may never be read

    def write(self, data: bytes) -> None:
        """Write these bytes."""
        self._writer.write(data)

    async def flush(self, seconds: float = 10) -> None:
        """Wait until the server has read everything; also returns when the server has closed the connection."""
        self._pong = asyncio.get_running_loop().create_future()
        self.write(b"PING\r\n")
        ended: asyncio.Future[Any] = asyncio.ensure_future(self.closed.wait())
        waits: set[asyncio.Future[Any]] = {self._pong, ended}
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()

    def ask(self, subject: bytes, payload: bytes, headers: bytes | None = None) -> asyncio.Future[bytes]:
        """Write a request; return the future of its answer: headers and payload as the server writes them."""
        self._numbers += 1
        reply = self._inbox + b".%d" % self._numbers
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[reply] = future
        self.write(published(subject, payload, headers, reply))
        return future

    async def answer(self, subject: bytes, payload: bytes, headers: bytes | None = None, seconds: float = 10) -> bytes:
        """Write a request and wait for the bytes of its answer."""
        return await asyncio.wait_for(self.ask(subject, payload, headers), seconds)

    async def _read(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while line := await self._reader.readuntil(b"\r\n"):
                await self._line(line[:-2])
        self.closed.set()

    async def _line(self, line: bytes) -> None:
        if line == b"PING":
            self.write(b"PONG\r\n")
        elif line == b"PONG" and self._pong is not None and not self._pong.done():
            self._pong.set_result(None)
        elif line.startswith(b"-ERR"):
            self.errors.append(line)
        elif line.startswith((b"MSG ", b"HMSG ")):
            parts = line.split(b" ")
            body = (await self._reader.readexactly(int(parts[-1]) + 2))[:-2]
            future = self._waiting.pop(parts[1], None)
            if future is not None and not future.done():
                future.set_result(body)


def published(subject: bytes, payload: bytes, headers: bytes | None = None, reply: bytes = b"") -> bytes:
    """Return a PUB frame, or an HPUB frame with this header block unchanged."""
    if headers is None:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    sizes = b"%d %d" % (len(headers), len(headers) + len(payload))
    return b"HPUB %b %b %b\r\n%b%b\r\n" % (subject, reply, sizes, headers, payload)
