"""Connections to NATS that outlive a server's restart, with a short way for messages that come in thousands.

nats-py makes an object, a queue entry and a coroutine of every message, and parses all its headers. Readers
of the log need none of that: a *sink* is called with the bytes of each message as the socket is read, and
``send`` writes many messages in one go. Everything else (connecting, reconnecting, resubscribing,
requests) is nats-py's. `tests/test_connection.py` holds both ways against each other, since the short one
leans on nats-py's inside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from ledger.errors import UnavailableError

if TYPE_CHECKING:
    from nats.aio.client import Srv
    from nats.aio.subscription import Subscription

_log = logging.getLogger(__name__)
PENDING_BYTES = 64 * 1024 * 1024
Sink = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply subject, raw headers (empty: none) and payload."""
_MSG, _HMSG, _END = b"MSG ", b"HMSG ", b"\r\n"


class _SinkParser(Parser):
    """nats-py's parser; messages of subscriptions with a sink do not pass through it."""

    def __init__(self, client: LedgerClient) -> None:
        super().__init__(client)
        self.sinks: dict[bytes, Sink] = {}

    async def parse(self, data: bytes = b"") -> None:
        self.buf.extend(data)
        if self.sinks:
            while self.state == AWAITING_CONTROL_LINE and self.buf:
                waiting = self._deliver()
                if waiting or not self.buf:
                    return  # a message for a sink has not come whole yet
                before = len(self.buf)
                await super().parse()
                if len(self.buf) == before:
                    return
        await super().parse()

    def _deliver(self) -> bool:
        """Hand messages at the front to their sinks; true where one waits for more bytes."""
        buffer, sinks = self.buf, self.sinks
        at, size, waiting = 0, len(buffer), False
        while True:
            with_headers = buffer.startswith(_HMSG, at)
            if not with_headers and not buffer.startswith(_MSG, at):
                break
            end = buffer.find(_END, at)
            if end < 0:
                break
            parts = bytes(buffer[at:end]).split()
            sink = sinks.get(parts[2])
            if sink is None:
                break
            start = end + 2
            stop = start + int(parts[-1])
            if stop + 2 > size:
                waiting = True
                break
            body = start + int(parts[-2]) if with_headers else start
            reply = parts[3] if len(parts) == (6 if with_headers else 5) else b""
            sink(parts[1], reply, bytes(buffer[start:body]), bytes(buffer[body:stop]))
            at = stop + 2
        if at:
            del buffer[:at]
        return waiting


class _Transport(TcpTransport):
    """TCP on which writing to a connection that has broken is nothing worse than lost.

    asyncio's own ``writelines`` raises a TypeError then (CPython gh-136234), which nats-py does not expect: its
    flusher dies of it, and so does whoever calls ``send``.
    """

    def __init__(self, connected: TcpTransport) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vars(self).update(vars(connected))
        self.ending = False  # then it does not matter that it broke

    def writelines(self, payload: list[bytes]) -> None:
        self.write(b"".join(payload))  # type: ignore[no-untyped-call]

    async def drain(self) -> None:
        try:
            await super().drain()  # type: ignore[no-untyped-call]
        except OSError:
            if not self.ending:
                raise


class LedgerClient(Client):
    """nats-py's client, with sinks and ``send``."""

    def __init__(self) -> None:
        super().__init__()
        self._ps: _SinkParser = _SinkParser(self)

    async def _connect_to_server(self, s: Srv) -> None:
        await super()._connect_to_server(s)
        if isinstance(self._transport, TcpTransport):
            self._transport = _Transport(self._transport)

    async def pour(self, subject: str, sink: Sink, queue: str = "") -> Subscription:
        """Subscribe; every message goes to the sink. End it with ``stop_pouring``."""

        async def never(_message: object) -> None:
            """Messages do not come this way."""

        subscription = await self.subscribe(subject, queue=queue, cb=never)
        self._ps.sinks[_sid(subscription)] = sink
        return subscription

    async def stop_pouring(self, subscription: Subscription) -> None:
        """End a subscription made by ``pour``."""
        try:
            await subscription.unsubscribe()
            if self.is_reconnecting:  # nats-py says nothing then, yet what began it may wait to be sent
                self.send(b"UNSUB %b\r\n" % _sid(subscription))
        finally:
            self._ps.sinks.pop(_sid(subscription), None)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        # A message that nats-py's parser had begun before its sink was there.
        sink = self._ps.sinks.get(str(sid).encode())
        if sink is not None:
            sink(subject, reply, headers or b"", data)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)

    async def close(self) -> None:
        """Close; a reconnection that nats-py cancels meanwhile does not cancel who closes."""
        if isinstance(self._transport, _Transport):
            self._transport.ending = True
        try:
            await super().close()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

    def send(self, frames: bytes) -> None:
        """Write frames made by ``frame`` at once, behind what waits; kept for later while disconnected.

        Raises:
            nats.errors.Error: the connection is closed, or too much waits already.

        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self._pending_data_size + len(frames) > PENDING_BYTES:
            raise nats.errors.OutboundBufferLimitError
        self._pending.append(frames)
        self._pending_data_size += len(frames)
        if self.is_connected and self._transport is not None:
            waiting, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(waiting)

    async def drained(self) -> None:
        """Wait until what was sent has left this process's buffers, more or less."""
        if self.is_connected and self._transport is not None:
            await self._transport.drain()  # type: ignore[no-untyped-call]


def _sid(subscription: Subscription) -> bytes:
    return str(subscription._id).encode()  # noqa: SLF001 - the wire's number of a subscription


def frame(subject: bytes, payload: bytes, reply: bytes = b"", headers: bytes = b"") -> bytes:
    """One message on the wire; ``headers`` are whole lines, each with its CR LF."""
    if headers:
        block = b"NATS/1.0\r\n" + headers + _END
        sizes = b"%d %d" % (len(block), len(block) + len(payload))
        return b"HPUB %b %b %b\r\n%b%b\r\n" % (subject, reply, sizes, block, payload)
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)


def status_of(headers: bytes) -> bytes:
    """The server's inline status (``b"404"``, ``b"100"``) in raw headers; empty where there is none."""
    return headers[9:12] if headers.startswith(b"NATS/1.0 ") else b""


async def connect(url: str, name: str, *, wait_seconds: float = 5, **credentials: Any) -> LedgerClient:
    """A connection that reconnects for ever.

    ``credentials`` go to nats-py: ``user``, ``password``, ``token``, ``user_credentials``, ``tls``.

    Raises:
        UnavailableError: nobody answers at ``url`` within ``wait_seconds``, or refuses the credentials.

    """
    client = LedgerClient()
    reached = False
    latest: Exception | None = None

    async def note(error: Exception) -> None:
        nonlocal latest
        latest = error
        # Permission violations and slow consumers show here alone; connection errors repeat
        # themselves at each attempt until one succeeds.
        level = logging.WARNING if reached else logging.DEBUG
        _log.log(level, "nats %s: %s", name, error)

    options: dict[str, Any] = {
        "servers": url.split(","),
        "name": f"resolution-ledger {name}",
        "error_cb": note,
        "max_reconnect_attempts": max(1, int(wait_seconds / 0.25)),
        "reconnect_time_wait": 0.25,
        "connect_timeout": 2,
        "pending_size": PENDING_BYTES,
        "allow_reconnect": True,
        "ping_interval": 10,
        "max_outstanding_pings": 3,
    } | credentials
    try:
        # nats-py itself waits for ever where a certificate is not accepted.
        await asyncio.wait_for(client.connect(**options), wait_seconds + options["connect_timeout"])
    except (nats.errors.Error, OSError, TimeoutError) as error:
        why = next((str(one) for one in (error, latest) if one is not None and str(one)), type(error).__name__)
        message = f"no NATS server answers at {_without_password(url)}: {why}"
        raise UnavailableError(message) from error
    reached = True
    client.options["max_reconnect_attempts"] = -1
    return client


def _without_password(url: str) -> str:
    return ",".join(part.rpartition("@")[2] for part in url.split(","))
