"""NATS connections that survive a server's restart, with a fast path for thousands of messages.

nats-py creates an object, a queue entry and a coroutine for each message, and parses all its headers. Readers of the
log need none of that. A *sink* is called with the bytes of each message while the socket is read, and ``send`` writes
many messages at once. Connecting, reconnecting, resubscribing and requests remain nats-py's.
`tests/ledger/test_nats_client.py` compares both paths, since the fast one relies on nats-py's internals.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import PERMISSIONS_ERR, STALE_CONNECTION, Parser

from ledger.errors import UnavailableError
from ledger.nats.connection_options import options_of
from ledger.nats.connection_refusals import CredentialsFileError, NoTlsError, refusal_reason
from ledger.nats.incidents import report
from ledger.nats.transport import ReconnectingTransport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from datetime import datetime

    from nats.aio.client import Srv
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from ledger.nats.connection_options import ConnectionOptions, NatsServer

_log = logging.getLogger(__name__)
PENDING_BYTES = 64 * 1024 * 1024
PING_SECONDS, PINGS_UNANSWERED = 5, 2
"""A silent connection is closed after 15 seconds, instead of nats-py's six minutes."""
Sink = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply subject, raw headers (empty: none) and payload."""
_MSG, _HMSG, _ERROR, _END = b"MSG ", b"HMSG ", b"-ERR ", b"\r\n"
_ACK = b"$JS.ACK."
_ANSWERABLE = re.compile(rb"_[!-)+-=?-~]+")


class _SinkParser(Parser):
    """A protocol parser that accepts every byte an upstream can send.

    It splits messages at the spaces that the server writes: nats-py's regular expressions also split at VT, FF and CR,
    which the server allows in subjects. Other lines are parsed by nats-py.
    """

    def __init__(self, client: LedgerClient) -> None:
        super().__init__(client)
        self.sinks: dict[bytes, Sink] = {}
        self._lines = Parser(client)

    def take(self, data: bytes) -> bytes:
        """Pass the messages at the front of these bytes to their sinks; return the rest, which ``parse`` takes."""
        self.buf.extend(data)
        try:
            self._deliver(to_sinks_alone=True)
        except nats.errors.ProtocolError:
            return self._rest()  # `parse` raises it again
        return self._rest() if self.buf else b""

    def _rest(self) -> bytes:
        rest = bytes(self.buf)
        self.buf.clear()
        return rest

    async def parse(self, data: bytes = b"") -> None:
        self.buf.extend(data)
        while self.buf:
            plain = self._deliver()
            if plain is not None:
                await self.nc._process_msg(*plain)  # noqa: SLF001 - as nats-py's own parser does
                continue
            end = self.buf.find(_END)
            if end < 0 or self.buf.startswith((_HMSG, _MSG)):
                return  # the rest has not arrived yet
            line = bytes(self.buf[: end + 2])
            del self.buf[: end + 2]
            if line.startswith(_ERROR):
                await self.nc._process_err(line[len(_ERROR) :].decode(errors="replace").strip().lower())  # noqa: SLF001
                continue
            self._lines.reset()
            await self._lines.parse(line)
            if self._lines.buf:
                raise nats.errors.ProtocolError

    def _deliver(self, *, to_sinks_alone: bool = False) -> tuple[int, bytes, bytes, bytes, bytes] | None:
        """Pass messages at the front to their sinks; return the first complete message without a sink.

        With ``to_sinks_alone`` that message stays in the buffer.
        """
        buffer, sinks = self.buf, self.sinks
        offset, size = 0, len(buffer)
        plain = None
        try:
            while plain is None:
                with_headers = buffer.startswith(_HMSG, offset)
                if not with_headers and not buffer.startswith(_MSG, offset):
                    break
                end = buffer.find(_END, offset)
                if end < 0:
                    break
                parts = bytes(buffer[offset:end]).split(b" ")
                try:
                    start = end + 2
                    stop = start + int(parts[-1])
                    body = start + int(parts[-2]) if with_headers else start
                except (ValueError, IndexError):
                    raise nats.errors.ProtocolError from None
                if stop + 2 > size:
                    break
                sink = sinks.get(parts[2])
                if sink is None and to_sinks_alone:
                    break
                reply = parts[3] if len(parts) == (6 if with_headers else 5) else b""
                headers, data = bytes(buffer[start:body]), bytes(buffer[body:stop])
                offset = stop + 2
                if sink is None:
                    plain = int(parts[2]), parts[1], reply, data, headers
                else:
                    _call_sink(sink, parts[1], reply, headers, data)
        finally:
            if offset:
                del buffer[:offset]
        return plain


def _call_sink(sink: Sink, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
    try:
        sink(subject, reply, headers, data)
    except Exception as error:  # noqa: BLE001 - a failing handler must not end the connection
        report("a message could not be handled", subject, error)


_NO_RESPONDERS_SECONDS = (0.02, 0.15)
_LEAVES_SECONDS = 0.3, 1.0
_SETTLED_SECONDS = 0.15


class LedgerClient(Client):
    """nats-py's client, with sinks and ``send``."""

    def __init__(self) -> None:
        super().__init__()
        self._ps: _SinkParser = _SinkParser(self)
        self._server_options: ConnectionOptions | None = None
        self._leaving: asyncio.Task[None] | None = None
        self.on_violation: Callable[[str], None] | None = None
        """Called with the server's message when it refuses a subject to this user."""

    async def connect_to(self, options: ConnectionOptions, **connect_arguments: Any) -> None:
        """Connect with these options; ``connect_arguments`` are passed to nats-py's ``connect``."""
        self._server_options = options
        leaving = {"lame_duck_mode_cb": self._on_lame_duck}
        await self.connect(**leaving | connect_arguments | options.connect_arguments())

    async def _on_lame_duck(self) -> None:
        """Leave a server of a cluster that is about to stop, before it closes this connection."""
        if len(self._server_pool) > 1 and (self._leaving is None or self._leaving.done()):
            self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        """Take no more requests, answer those that were received, and connect to another server.

        A server that stops closes connections with requests on their way, whose answers would be lost.
        """
        server, reconnects = self._current_server, self.stats["reconnects"]
        # Leaders of streams move first, and not all processes leave at once.
        await asyncio.sleep(random.uniform(*_LEAVES_SECONDS))  # noqa: S311 - no secret
        if (self._current_server, self.stats["reconnects"]) != (server, reconnects):
            return  # the server has closed the connection already
        with suppress(nats.errors.Error):
            for sid, subscription in [*self._subs.items()]:
                if subscription._queue:  # noqa: SLF001 - nats-py subscribes again after it has connected
                    self.send(b"UNSUB %d\r\n" % sid)
            await self.flush(timeout=1)
            await asyncio.sleep(_SETTLED_SECONDS)
            await self.flush(timeout=1)
        if self.is_connected and self.stats["reconnects"] == reconnects:
            await self._process_op_err(nats.errors.StaleConnectionError())

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """A context made for this connection, since certificates may be replaced while a process runs."""
        try:
            return self._server_options.ssl_context() if self._server_options else super().ssl_context
        except ValueError as error:
            raise nats.errors.Error(str(error)) from None

    @property
    def certificate_end(self) -> datetime | None:
        """The end of the certificate of the connected server; None without TLS."""
        return self._transport.certificate_end if isinstance(self._transport, ReconnectingTransport) else None

    def _connect_command(self) -> bytes:
        """Return the CONNECT line; a credentials file that is being replaced must not end the reconnection."""
        try:
            return super()._connect_command()
        except Exception as error:
            raise CredentialsFileError from error

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT002
        """Process the server's INFO; never send credentials in clear text if TLS is required."""
        await super()._process_info(info, initial_connection)
        if (
            not (initial_connection and self._server_options and self._server_options.requires_tls)
            or self._server_options.tls_first
        ):
            return
        if not (info.get("tls_required") or info.get("tls_available")):
            raise NoTlsError
        info["tls_required"] = True

    async def _connect_to_server(self, s: Srv) -> None:
        await super()._connect_to_server(s)
        if isinstance(self._transport, TcpTransport):
            self._transport = ReconnectingTransport(self._transport)

    async def request(self, *arguments: Any, **options: Any) -> Msg:
        """Send a request as nats-py does, and repeat it if no service responded.

        This happens for milliseconds while the server reloads its configuration. A request without a responder reached
        no service, so that a repetition is safe. If a service is not running, it costs a sixth of a second.
        """
        for pause in _NO_RESPONDERS_SECONDS:
            try:
                return await super().request(*arguments, **options)
            except nats.errors.NoRespondersError:
                await asyncio.sleep(pause)
        return await super().request(*arguments, **options)

    async def subscribe_raw(self, subject: str, sink: Sink, queue: str = "") -> Subscription:
        """Subscribe a sink to all messages of a subject. End it with ``unsubscribe_raw``."""

        async def never(_message: object) -> None:
            """Ignore the message: sinks get messages before nats-py does."""

        subscription = await self.subscribe(subject, queue=queue, cb=never)
        self._ps.sinks[_sid(subscription)] = sink
        return subscription

    async def unsubscribe_raw(self, subscription: Subscription) -> None:
        """End a subscription made by ``subscribe_raw``."""
        try:
            await subscription.unsubscribe()
            if self.is_reconnecting:  # nats-py sends nothing then, although the SUB may still be buffered
                self.send(b"UNSUB %b\r\n" % _sid(subscription))
        finally:
            self._ps.sinks.pop(_sid(subscription), None)

    async def drain_raw(self, subscriptions: Sequence[Subscription]) -> None:
        """End such subscriptions once their sinks have what the server had sent by then, so that nothing is lost."""
        try:
            for subscription in subscriptions:
                self.send(b"UNSUB %b\r\n" % _sid(subscription))
            await self.flush(timeout=2)
        finally:
            for subscription in subscriptions:
                await self.unsubscribe_raw(subscription)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if reply.startswith(_ACK) and status_of(headers):
            # A stored message: the publisher set this status, not the server.
            headers = b"NATS/1.0" + headers[headers.find(_END) :]
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except Exception as error:  # noqa: BLE001 - one message must not end the connection
            report("a message could not be read", subject, error)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except Exception as error:  # noqa: BLE001 - nats-py raises UnicodeDecodeError, IndexError and others here
            report("headers could not be read", headers[:80], error)
            return None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg | None:
        """Return the message; bytes of its subjects that are not UTF-8 become surrogates."""
        return self.msg_class(
            _client=self, subject=text_of(subject), reply=text_of(reply), data=data, headers=headers, _sid=sid
        )

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # the waiting task was cancelled; nats-py's read loop would fail
            self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        """Reconnect after an error of the server; nats-py closes the connection for good after most of them."""
        if PERMISSIONS_ERR in err_msg and self.on_violation is not None:
            self.on_violation(err_msg)
        if not self.is_connected or PERMISSIONS_ERR in err_msg or STALE_CONNECTION in err_msg:
            await super()._process_err(err_msg)
            return
        error = nats.errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def _read_loop(self) -> None:
        """Read until the connection ends; reconnect if anything else ends nats-py's loop."""
        if isinstance(self._transport, ReconnectingTransport):
            self._transport.offer_to(self._ps.take)
        await super()._read_loop()
        if self.is_connected and self._reading_task is asyncio.current_task():
            report("the connection's reader ended; connecting again")
            await self._process_op_err(nats.errors.ProtocolError())

    async def close(self) -> None:
        """Close the connection; a reconnection that nats-py cancels meanwhile does not cancel the caller."""
        if isinstance(self._transport, ReconnectingTransport):
            self._transport.ending = True
        try:
            await super().close()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

    def send(self, frames: bytes) -> None:
        """Write frames made by ``frame`` at once, after buffered ones; they are buffered while disconnected.

        Raises:
            nats.errors.Error: the connection is closed, or its buffer is full.
        """
        transport = self._transport
        if self._status == Client.CONNECTED and not self._pending and transport is not None:
            transport.write(frames)
            return
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self._pending_data_size + len(frames) > PENDING_BYTES:
            raise nats.errors.OutboundBufferLimitError
        self._pending.append(frames)
        self._pending_data_size += len(frames)
        if self.is_connected and self._transport is not None:
            waiting, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(waiting)

    async def wait_written(self) -> None:
        """Wait until most of the sent bytes have left this process's buffers."""
        if self.is_connected and self._transport is not None:
            await self._transport.drain()  # type: ignore[no-untyped-call]


def _sid(subscription: Subscription) -> bytes:
    return str(subscription._id).encode()  # noqa: SLF001 - the subscription's number in the protocol


def frame(subject: bytes, payload: bytes, reply: bytes = b"", headers: bytes = b"") -> bytes:
    """Return one message in the protocol's form; ``headers`` are whole lines, each with its CR LF."""
    if headers:
        block = b"NATS/1.0\r\n" + headers + _END
        sizes = b"%d %d" % (len(block), len(block) + len(payload))
        return b"HPUB %b %b %b\r\n%b%b\r\n" % (subject, reply, sizes, block, payload)
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)


def text_of(subject: bytes) -> str:
    """Return a subject as text; ``encode("utf-8", "surrogateescape")`` gives its bytes again."""
    return subject.decode("utf-8", "surrogateescape")


def is_answerable(reply: bytes) -> bool:
    """Return whether an answer may be sent to this reply subject.

    Inboxes and the server's rewritten replies begin with ``_``; no subject of the ledger or the server does. So no
    requester can make the ledger publish to a stream, to the JetStream API or to another service.
    """
    return _ANSWERABLE.fullmatch(reply) is not None


def status_of(headers: bytes) -> bytes:
    """Return the server's inline status (``b"404"``, ``b"100"``) in raw headers; empty if there is none."""
    return headers[9:12] if headers.startswith(b"NATS/1.0 ") else b""


_PAUSE_SECONDS, _CONNECT_SECONDS = 0.25, 2
_REFUSALS_AT_MOST = 4
"""A connection fails after this many refusals of each server: a server may be reloading its users."""


async def connect(server: NatsServer, name: str, *, wait_seconds: float = 5) -> LedgerClient:
    """Return a connection that reconnects forever, with these options or this URL.

    Raises:
        UnavailableError: no server answers within ``wait_seconds``, or every server refuses the connection.
    """
    options = options_of(server)
    client = LedgerClient()
    reached = False
    refused: list[str] = []
    refused_by_all = asyncio.Event()
    latest: Exception | None = None

    async def on_error(error: Exception) -> None:
        nonlocal latest
        # Permission violations and slow consumers are only reported here. Connection errors repeat at each attempt
        # until one succeeds.
        level = logging.WARNING if reached and str(error) != str(latest) else logging.DEBUG
        latest = error
        _log.log(level, "nats %s: %s", name, error)
        if not reached and (reason := refusal_reason(error)):
            refused.append(reason)
            if len(refused) >= _REFUSALS_AT_MOST * len(options.servers):
                refused_by_all.set()

    connecting = asyncio.ensure_future(
        client.connect_to(
            options,
            name=f"resolution-ledger {name}",
            error_cb=on_error,
            max_reconnect_attempts=max(1, int(wait_seconds / _PAUSE_SECONDS)),
            reconnect_time_wait=_PAUSE_SECONDS,
            connect_timeout=_CONNECT_SECONDS,
            pending_size=PENDING_BYTES,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=PINGS_UNANSWERED,
        )
    )
    waiting = asyncio.ensure_future(refused_by_all.wait())
    try:
        await asyncio.wait(
            [connecting, waiting], timeout=wait_seconds + _CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
            reached = True
            client.options["max_reconnect_attempts"] = -1
            return client
    finally:
        waiting.cancel()
        if not reached:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await client.close()
    if refused:
        raise UnavailableError(f"the NATS server at {options} cannot be used: {refused[-1]}")
    failed = [error for error in (latest, connecting.exception() if not connecting.cancelled() else None) if error]
    reason = next((str(error) for error in failed if str(error)), "no answer in time")
    raise UnavailableError(f"no NATS server answers at {options}: {reason}")
