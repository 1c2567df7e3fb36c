"""Admission over HTTP: tokens, rate limits, host names and parameters; a refusal affects its client alone."""

import asyncio
import json
import re
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from urllib.parse import quote

import httpx
import pytest

from app.runtime.session import Session
from config import topology
from dashboard.auth import rate_limit
from dashboard.auth.authorization import COOKIE
from dashboard.auth.rate_limit import FailureLimiter, network_of
from dashboard.auth.tokens import Tokens, digest_of
from dashboard.listen_address import ListenAddress, host_of
from ledger.errors import LedgerError
from ledger.store.log import Draft, Log
from tests.support.documents import Document
from tests.support.raw_http import RawAnswer, RawHttp, raw_http_of
from tests.support.waiting import eventually, wait_until


async def login(http: RawHttp, token: str, *headers: str, source: str = "") -> int:
    body = json.dumps({"token": token})
    framing = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close")
    head = http.head("POST /api/v1/session", *framing, *headers, token=None)
    return (await http.send(head + body.encode(), source=source)).status


async def asked(
    http: RawHttp, target: str, *headers: str, token: str | None = "", source: str = "", host: str = "localhost"
) -> RawAnswer:
    head = http.head(f"GET {target}", "Connection: close", *headers, token=token, host=host)
    return await http.send(head, source=source)


async def test_wrong_tokens_count_against_their_address_alone(session: Session) -> None:
    async with raw_http_of(session) as http:
        tries = [await login(http, f"guess-{n}", source="127.0.0.9") for n in range(25)]
        assert tries == [401] * 20 + [429] * 5
        assert await login(http, http.token, source="127.0.0.9") == 204  # a valid token, from the same address
        assert (await asked(http, "/api/v1/me", source="127.0.0.9")).status == 200
        assert await login(http, "guess", source="127.0.0.2") == 401  # another address
        assert await login(http, http.token, source="127.0.0.2") == 204
        for header in ("X-Forwarded-For: 10.9.9.9", "Forwarded: for=10.9.9.9"):  # no proxy is trusted
            assert await login(http, "guess", header, source="127.0.0.9") == 429
        wrong = [(await asked(http, "/api/v1/me", token="w", source="127.0.0.7")).status for _ in range(205)]
        assert wrong == [401] * 200 + [429] * 5
        refused = await asked(http, "/api/v1/me", token="w", source="127.0.0.7")
        assert b"retry-after: 60" in refused.text.lower()
        assert (await asked(http, "/api/v1/me", source="127.0.0.7")).status == 200
        assert (await asked(http, "/api/v1/me", token=None, source="127.0.0.7")).status == 401  # none is no guess


async def test_a_trusted_proxy_names_the_client(session: Session) -> None:
    async with raw_http_of(session, trusted_proxies=("127.0.0.5",)) as http:
        proxied: Document = {"source": "127.0.0.5"}
        for n in range(22):  # the client itself adds to the left, and the proxy to the right
            status = await login(http, "guess", f"X-Forwarded-For: 10.0.0.{n}, 10.7.7.7", **proxied)
            assert status == (401 if n < 20 else 429)
        assert await login(http, "guess", "X-Forwarded-For: 10.7.7.8", **proxied) == 401
        assert await login(http, "guess", "X-Forwarded-For: 10.7.7.7", source="127.0.0.6") == 401  # no proxy of ours
        for n in range(20):
            assert await login(http, "guess", f"X-Forwarded-For: 2001:db8:1:2::{n:x}", **proxied) == 401
        assert await login(http, "guess", "X-Forwarded-For: 2001:db8:1:2:ffff::1", **proxied) == 429  # one /64
        assert await login(http, "guess", "X-Forwarded-For: 2001:db8:1:3::1", **proxied) == 401
        for odd in ("\x01", "x" * 9_000, "[", "unknown", "1.2.3.4.5", ",,,", "10.0.0.1:99999999999999"):
            assert await login(http, "guess", f"X-Forwarded-For: {odd}", **proxied) in {400, 401, 429}, odd
    with pytest.raises(LedgerError, match="trusted-proxy"):
        ListenAddress(trusted_proxies=("proxy.example",)).checked()


def test_the_rate_limiter_keeps_a_bounded_number_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_NETWORKS", 50)
    limiter = FailureLimiter()
    for number in range(500):
        assert not limiter.is_exceeded_by_failure(f"10.0.{number // 250}.{number % 250}", 20)
    assert len(limiter._failures) == 50
    assert network_of("2001:db8::1") == network_of("2001:db8::2%eth0") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("x" * 9_000) == network_of("") == "unknown"


async def test_an_idle_connection_stays_open_until_another_needs_its_place(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server closed it after five seconds, as httpx does, and a request that met its end got no answer."""
    async with raw_http_of(session) as http:
        reader, writer = await asyncio.open_connection(http.host, http.port)
        for pause in (6, 0):
            writer.write(http.head("GET /healthz"))
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(pause)
        monkeypatch.setattr("dashboard.http.protocol._CONNECTIONS", 16)
        others = [await asyncio.open_connection(http.host, http.port) for _ in range(15)]  # these send nothing yet
        assert (await asked(http, "/healthz")).status == 200
        assert await reader.read() == b""  # the idle one made room
        late = await asyncio.open_connection(http.host, http.port)
        assert (await asked(http, "/healthz")).status == 503
        for _, one in (*others, late):
            one.close()
        writer.close()


async def test_the_host_is_checked(session: Session) -> None:
    async with raw_http_of(session, allowed_hosts=("ledger.example.com", "Ledger2.example")) as http:
        for host in (
            "localhost",
            "LOCALHOST:8321",
            "127.0.0.1",
            f"127.0.0.1:{http.port}",
            "[::1]:8321",
            "127.0.0.3",
            "ledger.example.com",
            "ledger.example.com.:443",
            "LEDGER2.example",
        ):
            assert (await asked(http, "/api/v1/me", host=host)).status == 200, host
        for host in (
            "evil.example",
            "localhost.evil.example",
            "10.1.2.3",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "x.ledger.example.com",
            "[::2]",
            "2130706433",
            "0x7f000001",
        ):
            for path in ("/api/v1/me", "/", "/metrics", "/api/v1/stream", "/openapi.json", "/nothing"):
                answer = await asked(http, path, host=host)
                assert answer.status == 421, (host, path)
            assert "--allowed-host" in answer.problem()["detail"]
            assert (await asked(http, "/healthz", host=host, token=None)).status == 200
            assert (await asked(http, "/readyz", host=host, token=None)).status == 200
        for host in (
            "",
            "a b",
            "localhost:x",
            "localhost\r\nHost: localhost",
            "[::1",
            "\xff",
            "-",
            "user@localhost",
            "localhost/x",
            "a" * 30_000,
            "localhost, localhost",
        ):
            answer = await asked(http, "/api/v1/me", host=host)
            assert answer.status in {400, 421}, host
        no_host = b"GET /api/v1/me HTTP/1.1\r\nConnection: close\r\n\r\n"
        assert (await http.send(no_host)).status == 400
    assert (host_of(b"A.b:80"), host_of(b"[::1]:80"), host_of(b"a:80:80"), host_of(b"")) == ("a.b", "::1", None, None)
    for wrong in ("http://x", "x:80", "x/", "", "*", "ü.example"):
        with pytest.raises(LedgerError, match="allowed-host"):
            ListenAddress(allowed_hosts=(wrong,)).checked()


ODD_QUERIES = ("%", "%zz", "%ff", "%ed%a0%80", "%00", "a%00b", "%0d%0aX:%20y", "x" * 3_000, "%c0%af", "\x7f")
ODD_NUMBERS = (
    "",
    "-1",
    "1.5",
    "1e3",
    "0x1",
    "NaN",
    "null",
    "true",
    "9" * 30,
    "9" * 5_000,
    "９",
    "9223372036854775808",
    "-9223372036854775809",
    "+-1",
)
ODD_MOMENTS = (
    "9" * 30,
    "9223372036854775808",
    "0000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999-14:00",
    "0001-01-01T00:00:00+14:00",
    "2026-01-01",
    "2026-01-01T00:00:00",
    "2026-01-01T00:00:60Z",
    "2026-01-01T25:00:00Z",
    "2026-01-01T00:00:00+99:99",
    "now",
    "-5",
    "1e30",
    "",
    "5 ",
    "٣",
    "9" * 5_000,
)
FINE_MOMENTS = (
    "0",
    "1",
    "9223372036854775807",
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999%2B14:00",
    "2026-01-01T00:00:00%2B14:00",
)


async def test_odd_text_in_addresses_is_refused_by_name(session: Session) -> None:  # noqa: C901 - a table, walked
    async with raw_http_of(session) as http:
        paths = json.loads((await asked(http, "/openapi.json")).text.partition(b"\r\n\r\n")[2])["paths"]
        tried, source = 0, await http.tokens.make("crm", "source", None, None, "crm")
        for path, methods in paths.items():
            if "get" not in methods or path == "/api/v1/stream":
                continue
            token = source if path in ("/api/v1/receipts/{id}", "/api/v1/brief", "/api/v1/notifications") else ""
            real = re.sub(r"{\w+}", "1", path)
            known = [one for one in methods["get"].get("parameters", []) if one["in"] == "query"]
            for one in known:
                name = one["name"]
                odd: tuple[str, ...] = ODD_QUERIES
                if name == "as_of":
                    odd = (*odd, *map(quote, ODD_MOMENTS))
                elif one["schema"].get("type") == "integer":
                    odd = (*odd, *map(quote, ODD_NUMBERS))
                for value in odd:
                    needed = (
                        "source=crm&" if name == "limit" and {"arrivals", "rejections"} & {*real.split("/")} else ""
                    )
                    answer = await asked(http, f"{real}?{needed}{name}={value}", token=token)
                    assert 400 <= answer.status < 500, (path, name, value, answer)
                    assert answer.status == 400 or answer.problem()["field"] == name, (path, name, value, answer)
                    tried += 1
                for value in FINE_MOMENTS if name == "as_of" else ():
                    answer = await asked(http, f"{real}?{name}={value}")
                    assert answer.status in {200, 503}, (path, value, answer)
                answer = await asked(http, f"{real}?{name}=1&{name}=1", token=token)
                assert (answer.status, answer.problem()["field"]) == (422, name)
            for query in ("nonsense=1", "nonsense", "=1", "%ff=1", "Limit=1", "%00=1"):
                answer = await asked(http, f"{real}?{query}", token=token if path != "/healthz" else None)
                assert answer.status == 422, (path, query, answer)
                assert answer.problem()["code"] in {"unknown_parameter", "invalid"}
        assert tried > 300
        answer = await asked(http, "/api/v1/actions?agnet=A-1")
        assert answer.problem()["detail"] == "agnet: unknown parameter; did you mean agent?"
        for target in ("/?x=1", "/assets/page.js?x=1", "/api/v1/session?x=1", "/openapi.json?x=1", "/metrics?x=1"):
            assert (await asked(http, target)).status == 422, target
        assert (await asked(http, "/api/v1/actions?" + "&" * 20_000)).status == 200
        assert (await asked(http, "/api/v1/actions?" + "a=1&" * 5_000)).status == 422
        for part in (
            "%ff",
            "%00",
            "%ed%a0%80",
            "..%2f..%2fetc",
            "x" * 20_000,
            "9" * 5_000,
            "-1",
            "1e3",
            "９",
            "%0d%0a",
        ):
            for path in ("explain/", "case/", "proof/", "events/", "escalations/"):
                answer = await asked(http, f"/api/v1/{path}{part}")
                assert 400 <= answer.status < 500, (path, part, answer)
        for header in (
            "Last-Event-ID: " + "9" * 9_000,
            "If-None-Match: \xff",
            f"Cookie: {COOKIE}=\xff; a; =;;",
            "Origin: \xff",
            "Range: bytes=9-1",
            "Accept-Encoding: \xff",
            "Content-Type: \xff",
        ):
            assert (await asked(http, "/api/v1/me", header)).status == 200, header


ODD_BODIES = (
    rb'{"kind": "\ud800"}',
    rb'{"\ud800": 1}',
    rb'{"reason": "\udfff\ud800"}',
    b'{"kind": NaN}',
    b'{"kind": Infinity}',
    b'{"kind": "refund", "kind": "gift"}',
    b'{"a": ' * 10_000,
    b"[" * 60_000,
    b"{" * 60_000,
    b'{"kind": 1' + b"0" * 9_000 + b"}",
    b'{"kind": 1e999}',
    b'{"kind": -1e999}',
    b"",
    b" ",
    b"\x00",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b'"\xff"',
    b"null",
    b"[]",
    b"1",
    b'"x"',
    b"{",
    b"{'kind': 1}",
    b'{"kind": "refund",}',
    b"{}{}",
    b'{"kind": "refund"} x',
    b"[" * 70 + b"]" * 70,
    b'{"kind": "\x00"}',
)


async def test_odd_bodies_are_refused(session: Session) -> None:
    async with raw_http_of(session) as http:
        posts = ("/api/v1/preview", "/api/v1/check", "/api/v1/policies", "/api/v1/flags/f", "/api/v1/session")
        for path in posts:
            for body in ODD_BODIES:
                if path.endswith("session") and len(body) > 4_000:
                    continue
                framing = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close")
                answer = await http.send(http.head(f"POST {path}", *framing) + body)
                assert answer.status in {400, 422, 429}, (path, body[:40], answer)
                assert answer.problem()["detail"]
        for kind in (
            "text/plain",
            "application/xml",
            "application/json; charset=utf-16",
            "\xff",
            ";",
            "multipart/form-data",
        ):
            body = b"{}"
            answer = await http.send(
                http.head("POST /api/v1/preview", f"Content-Type: {kind}", "Content-Length: 2", "Connection: close")
                + body
            )
            assert answer.status in {400, 415, 422}, (kind, answer)
        async with httpx.AsyncClient(
            base_url=http.address, headers={"Authorization": f"Bearer {http.token}"}
        ) as client:
            money = {"amount": "5.00", "currency": "GBP", "curency": "GBP"}
            for given, field, says in (
                ({"kind": "refund", "agent": "A-1"}, "agent", "did you mean agent_id?"),
                ({"kind": "refund", "amount": money}, "amount.curency", "did you mean currency?"),
                ({"kind": "refund", "xyz": 1}, "xyz", "known are agent_id, amount,"),
            ):
                refused = (await client.post("/api/v1/preview", json=given)).json()
                assert (refused["status"], refused.get("code"), refused.get("field")) == (
                    422,
                    "unknown_field",
                    field,
                ), refused
                assert says in refused["detail"]
            refused = (await client.post("/api/v1/session", json={"token": "x", "tokn": 1})).json()
            assert (refused["status"], refused["code"]) == (422, "unknown_field")
            for token in ("\u0000", "é", "x" * 400):
                assert (await client.post("/api/v1/session", json={"token": token})).status_code == 401


async def test_a_revoked_token_ends_its_event_stream(session: Session) -> None:
    """A stream ends soon after its token is revoked, expires or changes its role, or after its browser signs out."""
    async with raw_http_of(session) as http:
        tokens = {
            name: await http.tokens.make(name, "auditor", None, None)
            for name in ("revoked", "shrinks", "leaves", "stays")
        }
        cookies = {}
        async with httpx.AsyncClient(base_url=http.address) as browser:
            for name in ("leaves", "revoked"):
                await browser.post("/api/v1/session", json={"token": tokens[name]})
                cookies[name] = browser.cookies[COOKIE]
                browser.cookies.clear()

        answered: list[int] = []

        async def listen(**headers: str) -> float:
            """Listen until the stream ends; return that moment."""
            client = httpx.AsyncClient(base_url=http.address, headers=headers, timeout=20)
            async with client, client.stream("GET", "/api/v1/stream") as answer:
                answered.append(answer.status_code)
                async for _ in answer.aiter_bytes():
                    pass
            return time.monotonic()

        over = datetime.now(UTC) + timedelta(seconds=4)
        tokens["expires"] = await http.tokens.make("expires", "auditor", None, over)
        streams = {name: asyncio.create_task(listen(Authorization=f"Bearer {token}")) for name, token in tokens.items()}
        streams |= {
            f"cookie of {name}": asyncio.create_task(listen(Cookie=f"{COOKIE}={cookie}"))
            for name, cookie in cookies.items()
        }
        await wait_until(lambda: len(answered) == len(streams))
        assert set(answered) == {200}
        assert not any(one.done() for one in streams.values())
        begun = time.monotonic()
        await Tokens(session.client).revoke("revoked")
        log = await Log.unstamped(session.client, topology.TOKENS)
        shrunk = {"name": "shrinks", "role": "agent", "person_id": "A-1", "made": "2026-01-01T00:00:00Z"}
        subject = f"{topology.TOKENS_SUBJECT}.{digest_of(tokens['shrinks'])}"
        await log.append([Draft(subject, json.dumps(shrunk).encode())])
        async with httpx.AsyncClient(base_url=http.address, cookies={COOKIE: cookies["leaves"]}) as browser:
            assert (await browser.delete("/api/v1/session")).status_code == 204
        for name in ("revoked", "shrinks", "cookie of leaves", "cookie of revoked"):
            assert await asyncio.wait_for(streams.pop(name), 10) - begun < 3, name
        await asyncio.wait_for(streams.pop("expires"), 10)
        assert datetime.now(UTC) - over < timedelta(seconds=3)
        assert not any(one.done() for one in streams.values())
        for one in streams.values():
            one.cancel()
        await asyncio.gather(*streams.values(), return_exceptions=True)


async def test_streams_are_bounded_by_token_and_in_all(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.auth.authorization._STREAM_LIMIT", 3)
    monkeypatch.setattr("dashboard.auth.authorization._STREAMS_PER_TOKEN", 2)
    async with raw_http_of(session) as http:
        first, second = [await http.tokens.make(name, "auditor", None, None) for name in ("a", "b")]
        reading = []
        for token, status in ((first, 200), (first, 200), (first, 429), (second, 200), (second, 503)):
            reader, writer = await asyncio.open_connection(http.host, http.port)
            writer.write(http.head("GET /api/v1/stream", token=token))
            assert f" {status} " in (await reader.readline()).decode()
            reading.append(writer)
        for writer in reading:
            writer.close()
        await eventually(  # a closed stream makes room
            lambda: http.send(http.head("GET /api/v1/stream", token=first), until_closed=False),
            lambda answer: answer.status == 200,
            every_seconds=0.1,
        )


def test_options_reach_the_process_that_serves() -> None:
    where = ListenAddress(allowed_hosts=("a.example", "b.example"), trusted_proxies=("10.0.0.0/8",)).checked()
    words = where.options(3)
    pairs = list(pairwise(words))
    assert {("--allowed-host", "a.example"), ("--allowed-host", "b.example"), ("--trusted-proxy", "10.0.0.0/8")} <= {
        *pairs
    }
