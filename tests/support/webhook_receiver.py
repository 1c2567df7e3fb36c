"""A receiver of webhooks as its engineer would write it: signatures by the Standard Webhooks library."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from standardwebhooks.webhooks import Webhook as Verifier

from tests.support.documents import Document


class Received(NamedTuple):
    """An accepted request: its headers, and its body."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Document:
        """The body as JSON."""
        found: Document = json.loads(self.body)
        return found


class Receiver:
    """An HTTP server on loopback that answers each request with the status that ``answer`` returns."""

    def __init__(self, answer: Callable[[Received], int] = lambda _: 204) -> None:
        self.answer = answer
        self.accepted: list[Received] = []
        self.attempts = 0
        self.secret = ""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The address of the receiver."""
        return f"http://127.0.0.1:{self.port}/hooks"

    @property
    def ids(self) -> list[str]:
        """The `webhook-id` of each accepted request."""
        return [one.headers["webhook-id"] for one in self.accepted]

    async def start(self) -> None:
        """Begin to listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Stop to listen, and cut all connections."""
        assert self._server is not None
        self._server.close()
        for writer in self._connections:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                received = Received(headers, await reader.readexactly(int(headers["content-length"])))
                self.attempts += 1
                status = self.answer(received)
                if 200 <= status < 300:
                    if self.secret:
                        Verifier(self.secret).verify(received.body, received.headers, json_parse=False)
                    self.accepted.append(received)
                writer.write(f"HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()


@asynccontextmanager
async def receiver(answer: Callable[[Received], int] = lambda _: 204) -> AsyncIterator[Receiver]:
    """Run a receiver."""
    one = Receiver(answer)
    await one.start()
    try:
        yield one
    finally:
        await one.die()


def failing_half(seed: int) -> Callable[[Received], int]:
    """Return an answer that is 503 half of the time."""
    draw = random.Random(seed)
    return lambda _: 503 if draw.random() < 0.5 else 204


def first_deliveries(receiver: Receiver) -> list[Document]:
    """Return the events in the order of their first acceptance, without the duplicates that `webhook-id` shows."""
    found: dict[str, Document] = {}
    for one in receiver.accepted:
        found.setdefault(one.headers["webhook-id"], one.event)
    return list(found.values())


def positions_by[T](events: list[Document], key: Callable[[Document], T]) -> dict[T, list[int]]:
    """Return the positions of events, grouped by a key."""
    grouped: defaultdict[T, list[int]] = defaultdict(list)
    for one in events:
        grouped[key(one)].append(one["position"])
    return dict(grouped)
