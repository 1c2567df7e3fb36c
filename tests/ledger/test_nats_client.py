"""Sinks and frames, held against nats-py's own way of reading and writing."""

import asyncio
import random

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport

from app.runtime.session import Session
from ledger.nats.client import LedgerClient, _SinkParser, frame, status_of
from ledger.nats.transport import ReconnectingTransport
from tests.support.waiting import wait_until


def wire(kind: int, sid: int, payload: bytes) -> bytes:
    """Return the bytes of a message as the server writes it."""
    if kind == 0:
        return b"MSG a.b %d %d\r\n%b\r\n" % (sid, len(payload), payload)
    if kind == 1:
        return b"MSG a.b %d re.ply %d\r\n%b\r\n" % (sid, len(payload), payload)
    head = b"NATS/1.0\r\nX: y\r\n\r\n"
    reply = b"" if kind == 2 else b"re.ply "
    return b"HMSG a.b %d %b%d %d\r\n%b%b\r\n" % (sid, reply, len(head), len(head) + len(payload), head, payload)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2), st.binary(max_size=40))), st.randoms())
def test_however_the_bytes_are_cut_every_message_comes_once_and_whole(
    messages: list[tuple[int, int, bytes]], chance: random.Random
) -> None:
    client = LedgerClient()
    parser = _SinkParser(client)
    poured: list[bytes] = []
    other: list[bytes] = []
    parser.sinks[b"1"] = lambda subject, reply, headers, payload: poured.append(payload)  # noqa: ARG005
    client._ps = parser

    async def plain(sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        (poured if sid == 1 else other).append(data)

    client._process_msg = plain  # type: ignore[method-assign]
    stream = b"".join(wire(*message) for message in messages)

    async def feed() -> None:
        at = 0
        while at < len(stream):
            size = chance.randint(1, 30)
            await parser.parse(stream[at : at + size])
            at += size

    asyncio.run(feed())
    assert poured == [payload for _, sid, payload in messages if sid == 1]
    assert other == [payload for _, sid, payload in messages if sid == 2]
    assert not parser.buf


def test_messages_stay_in_order_whether_they_are_taken_on_arrival_or_read() -> None:
    for seed in range(200):
        asyncio.run(_take_and_read(random.Random(seed)))


async def _take_and_read(chance: random.Random) -> None:
    """Cut messages anywhere; those of subscription 2 have no sink, and take turns of the event loop."""
    messages = [(chance.randint(0, 4), chance.randint(1, 2), b"%d" % number) for number in range(20)]
    stream = b"".join(b"+OK\r\n" if message[0] == 4 else wire(*message) for message in messages)
    client, seen = LedgerClient(), list[tuple[int, bytes]]()

    async def plain(sid: int, _subject: bytes, _reply: bytes, data: bytes, _headers: bytes) -> None:
        for _ in range(chance.randint(0, 2)):
            await asyncio.sleep(0)
        seen.append((sid, data))

    async def read() -> None:
        while data := await transport.read(chance.choice((16, 64))):
            await client._ps.parse(data)

    client._process_msg = plain  # type: ignore[assignment,method-assign]
    client._ps.sinks[b"1"] = lambda _subject, _reply, _headers, payload: seen.append((1, payload))
    connected = TcpTransport()  # type: ignore[no-untyped-call]
    connected._io_reader = reader = asyncio.StreamReader()
    transport = ReconnectingTransport(connected)
    transport.offer_to(client._ps.take)
    reading, at = asyncio.create_task(read()), 0
    while at < len(stream):
        size = chance.randint(1, 60)
        reader.feed_data(stream[at : at + size])
        at += size
        for _ in range(chance.randint(0, 3)):
            await asyncio.sleep(0)
    reader.feed_eof()
    await reading
    assert seen == [(sid, payload) for kind, sid, payload in messages if kind != 4]
    assert not client._ps.buf


def test_a_message_is_delivered_once_before_bytes_that_are_no_message() -> None:
    client, seen = LedgerClient(), list[bytes]()
    client._ps.sinks[b"1"] = lambda _subject, _reply, _headers, payload: seen.append(payload)
    rest = client._ps.take(wire(0, 1, b"one") + b"MSG a.b 1 x\r\n")
    with pytest.raises(nats.errors.ProtocolError):
        asyncio.run(client._ps.parse(rest))
    assert seen == [b"one"]


async def test_a_sink_and_a_subscription_see_the_same(session: Session) -> None:
    client, poured, plain = session.client, [], []

    async def hear(message: Msg) -> None:
        plain.append((message.subject, message.reply, message.data))

    def sink(subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        poured.append((subject.decode(), reply.decode(), payload))

    await client.subscribe("news.*", cb=hear)
    subscription = await client.subscribe_raw("news.*", sink)
    await client.flush()
    for number in range(300):
        client.send(frame(b"news.%d" % number, b"x" * number, b"back", b"A: b\r\n" if number % 2 else b""))
    await client.flush()
    await wait_until(lambda: len(plain) == 300)
    assert poured == plain
    await client.unsubscribe_raw(subscription)
    client.send(frame(b"news.last", b""))
    await client.flush()
    assert len(poured) == 300


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"NATS/1.0 404\r\n\r\n", b"404"),
        (b"NATS/1.0 100 Idle Heartbeat\r\nX: y\r\n\r\n", b"100"),
        (b"", b""),
        (b"NATS/1.0\r\nStatus: 404\r\n\r\n", b""),
    ],
)
def test_only_the_servers_own_status_counts(headers: bytes, status: bytes) -> None:
    assert status_of(headers) == status


async def test_writing_to_a_connection_that_has_just_broken_raises_nothing(session: Session) -> None:
    client = await session.connection("broken")
    client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
    await asyncio.sleep(0)  # the connection is lost, and nats-py has not heard of it
    client.send(frame(b"x", b""))
    await client.publish("x", b"")
    await asyncio.sleep(0.2)  # what was written meanwhile is lost
    assert (await client.request("$JS.API.INFO", b"", timeout=10)).data


async def test_closing_a_connection_that_has_just_broken_raises_nothing(session: Session) -> None:
    client = await session.connection("broken")
    client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
    await asyncio.sleep(0)
    client._pending, client._pending_data_size = [b"PING\r\n"], 6  # what nats-py flushes before it closes
    await client.close()
    assert client.is_closed
