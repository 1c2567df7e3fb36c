"""Bounds on bytes of the HTTP socket before a sender is authenticated; over raw sockets throughout."""

import asyncio
import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.runtime.session import Session
from tests.support.raw_http import RawHttp, raw_http_of
from tests.support.waiting import wait_until


@contextlib.contextmanager
def most_memory() -> Iterator[list[int]]:
    """Measure the peak of memory above its beginning, in bytes, every few milliseconds."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    begin, most, done = resident(), [0], threading.Event()

    def look() -> None:
        while not done.wait(0.003):
            most[0] = max(most[0], resident() - begin)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield most
    finally:
        done.set()
        looking.join()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_no_body_is_read_before_its_sender_is_known(session: Session) -> None:
    """Six at once of 90 MB each: with a length, or in chunks, to any route, without a token or with a wrong one."""
    size, part = 90_000_000, b"x" * 65_536

    async def pour(http: RawHttp, path: str, token: str | None, *, chunked: bool) -> int:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        _, writer = await asyncio.open_connection(http.host, http.port)
        head = http.head(f"POST {path}", "Content-Type: application/json", framing, token=token)
        writer.write(head)
        sent = 0
        try:
            while sent < size:
                writer.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
                await writer.drain()
                sent += len(part)
        except ConnectionError:
            pass
        writer.close()
        return sent

    async with raw_http_of(session) as http:
        agent = await http.tokens.make("a", "agent", "A-1", None)
        for token in (None, "wrong", agent):
            path = "/api/v1/policies" if token == agent else "/api/v1/check"
            with most_memory() as most:
                sent = await asyncio.gather(*(pour(http, path, token, chunked=n % 2 == 0) for n in range(6)))
            assert most[0] < 12_000_000, (token, most)
            assert max(sent) < 20_000_000, sent  # what the two sockets hold
        with most_memory() as most:  # a known sender's body is bounded
            sent = await asyncio.gather(
                *(pour(http, "/api/v1/check", http.token, chunked=n % 2 == 0) for n in range(6))
            )
        assert most[0] < 12_000_000, most
        for path in ("/api/v1/session", "/api/v1/nothing", "/healthz", "/"):
            with most_memory() as most:
                await asyncio.gather(*(pour(http, path, None, chunked=n % 2 == 0) for n in range(6)))
            assert most[0] < 12_000_000, (path, most)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_a_body_where_none_has_a_meaning_changes_no_answer(session: Session, method: str) -> None:
    """RFC 9110, 9.3.1: the content of a GET has no meaning; the answer is that to the same request without it."""
    lengths = ("Content-Length: 99999999999", "Content-Length: 100000", "Content-Length: 3")
    bodies = {**dict.fromkeys(lengths, b"xyz"), "Transfer-Encoding: chunked": b"3\r\nxyz\r\n20000\r\n" + b"x" * 0x20000}
    paths = ("/", "/assets/page.js", "/healthz", "/api/v1/version", "/api/v1/actions", "/api/v1/nothing")
    async with raw_http_of(session) as http:
        for path in paths:
            right = (await http.send(http.head(f"{method} {path}"), until_closed=False)).status  # it is kept alive
            for framing, body in bodies.items():
                for sent in (b"", body):
                    answer = await http.send(http.head(f"{method} {path}", framing) + sent)
                    assert (answer.status, answer.closed) == (right, True), (path, framing, sent[:9], answer)


async def test_a_body_is_asked_for_only_once_its_sender_may(session: Session) -> None:
    async with raw_http_of(session) as http:
        agent = await http.tokens.make("a", "agent", "A-1", None)
        expects = ("Content-Type: application/json", "Content-Length: 50", "Expect: 100-continue")
        for token, path, status in (
            (None, "/api/v1/check", 401),
            ("wrong", "/api/v1/check", 401),
            (agent, "/api/v1/policies", 403),
            (agent, "/api/v1/check?x=1", 422),
        ):
            answer = await http.send(http.head(f"POST {path}", *expects, token=token), seconds=5)
            assert (answer.status, answer.closed) == (status, True), (path, answer)
            assert b"100 Continue" not in answer.text
        answer = await http.send(http.head("POST /api/v1/check", *expects), until_closed=False)
        assert answer.text.startswith(b"HTTP/1.1 100 Continue")
        for headers in (("Content-Length: 65537",), ("Transfer-Encoding: chunked",)):
            body = b"" if "Content" in headers[0] else b"10000\r\n" + b" " * 0x10000 + b"\r\n1\r\n \r\n"
            answer = await http.send(http.head("POST /api/v1/check", "Content-Type: application/json", *headers) + body)
            assert (answer.status, answer.closed, answer.problem()["code"]) == (413, True, "too_large")
        till = await http.tokens.make("till", "source", None, None, "till")
        batch = http.head("POST /api/v1/events", "Content-Length: 8388609", token=till)
        assert (await http.send(batch)).problem()["code"] == "too_large"
        answer = await http.send(
            http.head("POST /api/v1/session", "Content-Type: application/json", "Content-Length: 4097", token=None)
        )
        assert answer.status == 413


async def test_slow_heads_bodies_and_readers_are_cut_off(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.http.protocol.HEAD_SECONDS", 0.5)
    monkeypatch.setattr("dashboard.http.protocol.READER_SECONDS", 0.5)
    monkeypatch.setattr("dashboard.http.body_limits.BODY_SECONDS", 0.5)
    async with raw_http_of(session) as http:
        head = http.head("POST /api/v1/check", "Content-Type: application/json", "Content-Length: 50")
        answer = await http.send(head + b'{"a"')
        assert (answer.status, answer.closed) == (408, True)

        async def drip(data: bytes, pause: float) -> float:
            """Seconds until the server closes, while one byte after the other comes."""
            reader, writer = await asyncio.open_connection(http.host, http.port)
            begun, closed = time.monotonic(), asyncio.create_task(reader.read())
            for byte in data:
                if closed.done():
                    break
                writer.write(bytes((byte,)))
                await asyncio.sleep(pause)
            took = time.monotonic() - begun
            writer.close()
            await asyncio.gather(closed, return_exceptions=True)
            return took

        for data in (head, b"\r\n" * 200, b"G" * 300, head + b" " * 50):
            assert await drip(data, 0.05) < 5, data[:20]
        answer = await http.send(b"", seconds=5)  # says nothing at all
        assert answer.closed
        assert http.connections() == 0
        with socket.socket() as deaf:  # it reads nothing
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.connect((http.host, http.port))
            deaf.sendall(http.head("GET /openapi.json") * 150)
            await asyncio.sleep(0.1)
            assert http.connections() == 1
            await wait_until(lambda: not http.connections())  # a client that reads nothing is cut off


async def test_heads_are_bounded(session: Session) -> None:
    async with raw_http_of(session) as http:
        many = tuple(f"X-{n}: 1" for n in range(120))
        for data in (
            http.head("GET /healthz", *many),
            http.head("GET /healthz", "X: " + "x" * 400_000),
            b"GET /" + b"x" * 400_000,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A" * 400_000,
        ):
            answer = await http.send(data, seconds=5)
            assert (answer.status, answer.closed) == (431, True), answer
            assert answer.problem()["status"] == 431


SMUGGLED = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
    "both, other order": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two other lengths": b"Content-Length: 2\r\nContent-Length: 30\r\n\r\n{}",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a list of lengths": b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": b"Content-Length: +2\r\n\r\n{}",
    "a hexadecimal length": b"Content-Length: 0x2\r\n\r\n{}",
    "a length beyond all": b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "a folded header": b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "an odd coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a tab in a coding": b"Transfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"Content-Length : 2\r\n\r\n{}",
    "no colon": b"Content-Length 2\r\n\r\n{}",
    "NUL in a value": b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "a bare CR": b"X-A: a\rContent-Length: 2\r\n\r\n{}",
    "a chunk size that is none": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a negative chunk size": b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a chunk size beyond all": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "a chunk that is longer": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n",
    "a coding beside chunked": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a body behind Upgrade": b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 30\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
    "chunks behind Upgrade": b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
}


async def test_requests_that_end_in_two_places_are_refused(session: Session) -> None:
    """RFC 9112, 6.3 and 7.1, RFC 9110, 5.5: the connection ends with one answer, 400."""
    async with raw_http_of(session) as http:
        begin = http.head("POST /api/v1/check", "Content-Type: application/json")[:-2]
        for kind, rest in SMUGGLED.items():
            answer = await http.send(begin + rest, seconds=5)
            assert (answer.status, answer.closed) == (400, True), (kind, answer)
            assert len(re.findall(rb"HTTP/1.1 \d\d\d", answer.text)) == 1, (kind, answer)
        for version in (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2"):
            data = begin.replace(b"HTTP/1.1", version) + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            answer = await http.send(data, seconds=5)
            assert (answer.status, answer.closed) == (400, True), (version, answer)
        for data in (
            b"\xff\xfe\r\n\r\n",
            b"GET http://[::1 HTTP/1.1\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        ):
            answer = await http.send(data, seconds=12)
            assert answer.closed, data
            assert answer.status in {0, 400}, (data, answer)
        assert (await http.send(http.head("GET /healthz"), until_closed=False)).status == 200


async def test_bytes_after_an_upgrade_or_a_body_are_no_request(session: Session) -> None:
    """RFC 9110, 6.5.1 and 7.8; RFC 9112, 3.2.2: the host of an absolute target is the one that is asked."""
    async with raw_http_of(session) as http:
        upgrade = http.head("GET /api/v1/me", "Connection: Upgrade", "Upgrade: h2c")
        answer = await http.send(upgrade + http.head("GET /api/v1/me") * 3, seconds=5)
        assert (answer.status, answer.closed, answer.text.count(b"HTTP/1.1 200")) == (200, True, 1), answer
        chunked = http.head("POST /api/v1/check", "Transfer-Encoding: chunked", token=None)
        trailers = f"2\r\n{{}}\r\n0\r\nAuthorization: Bearer {http.token}\r\n\r\n".encode()
        assert (await http.send(chunked + trailers, seconds=5)).status == 401
        for target, status in (
            ("http://localhost", 200),
            (http.address, 200),
            ("http://evil.example", 421),
            ("http://x@localhost", 400),
            ("http://evil.example?x=", 400),
        ):
            answer = await http.send(http.head(f"GET {target}/api/v1/me"), until_closed=False)
            assert answer.status == status, (target, answer)
        other = await http.send(http.head("GET http://localhost/api/v1/me", host="evil.example"), until_closed=False)
        assert other.status == 200
