"""HTTP connections with limits on their number, on the size and time of a head, and on slow readers.

uvicorn has none of these limits. An application cannot have them, since it is called after a head is complete.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from http import HTTPStatus
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dashboard.auth.rate_limit import network_of
from dashboard.schemas import PROBLEM, TITLES

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HEAD_BYTES, HEADERS = 32_768, 100
HEAD_SECONDS, READER_SECONDS = 10.0, 30.0
"""Time limits: for a complete request head, and for a client that reads nothing of an answer."""
_CONNECTIONS = 4_096
_VERSIONS = ("1.0", "1.1")
_CODING = (b"transfer-encoding", b"chunked")
_BODY_FRAMING = (b"content-length", _CODING[0])
_ABSOLUTE, _AUTHORITY_END = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://"), re.compile(rb"[/?#]")


def most_connections() -> int:
    """Return the limit of open connections: half of the files that this process may open."""
    if sys.platform != "win32":  # Windows has no such limit
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            return max(16, min(_CONNECTIONS, soft // 2))
    return _CONNECTIONS


def _makes_room(connections: Iterable[object]) -> bool:
    """Close the connection that has been idle for the longest time; return false where none is idle."""
    idle = [
        (timer.when(), one.timeout_keep_alive_handler)
        for one in connections
        if isinstance(one, BoundedHttpProtocol)
        and (timer := one.timeout_keep_alive_task) is not None
        and not one.transport.is_closing()
    ]
    if idle:
        close = min(idle, key=itemgetter(0))[1]
        close()
    return bool(idle)


class BoundedHttpProtocol(HttpToolsProtocol):
    """An HTTP/1.1 connection that is refused or closed when it exceeds a limit."""

    trusted: tuple[Network, ...] = ()
    """Trusted proxies: many clients share the address of one."""
    _refusal = HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1"
    _head_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None
    _heads = _head = 0
    """Number of heads so far, and number of the one being received: 0 between two."""
    _head_bytes = _headers = 0
    network = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Make room for a connection beyond the limit, of all networks or of one, or refuse it.

        The connection that has been idle for the longest time makes room.
        """
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        self.network = network_of(host)
        most = most_connections()
        of_one = [one for one in self.connections if getattr(one, "network", None) == self.network]
        has_share = len(of_one) > most // 2 and not self._shares_address(host)
        if (len(self.connections) <= most and not has_share) or _makes_room(of_one if has_share else self.connections):
            self._begin_head()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many open connections: try again later")

    def _shares_address(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or any(address in network for network in self.trusted)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._end_head()
        self._end_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data; refuse a head that is too long."""
        if self.transport.is_closing():
            return
        head_before = self._head
        super().data_received(data)
        if self._head and self._head == head_before:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head has at most {HEAD_BYTES} bytes")
        elif self.cycle is None or self.cycle.response_complete:
            self._begin_head()  # uvicorn's timer of idle connections was stopped, also by an empty line

    def on_message_begin(self) -> None:
        """Count the head of a request."""
        super().on_message_begin()
        self._heads += 1
        self._head, self._head_bytes, self._headers = self._heads, 0, 0
        self._begin_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count headers and trailers; drop trailers, because they can carry headers that a proxy removes from heads."""
        self._headers += 1
        if self._headers > HEADERS:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has at most {HEADERS} headers"
            raise ValueError(self._refusal[1])
        if self._head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request on, unless two parsers may see different ends of its body (RFC 9112, 6.3)."""
        version = self.parser.get_http_version()
        framing = [(name, value.strip().lower()) for name, value in self.headers if name in _BODY_FRAMING]
        if version not in _VERSIONS:
            raise ValueError(self._refusal[1])
        if len(framing) > 1:
            self._refusal = HTTPStatus.BAD_REQUEST, "a request has one Content-Length or one Transfer-Encoding"
            raise ValueError(self._refusal[1])
        if framing and framing[0][0] == _CODING[0] and (version != "1.1" or framing[0] != _CODING):
            self._refusal = HTTPStatus.BAD_REQUEST, "Transfer-Encoding belongs to HTTP/1.1, and is `chunked` here"
            raise ValueError(self._refusal[1])
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade and framing:  # the parser does not read its body
            self._refusal = HTTPStatus.BAD_REQUEST, "a request with a body cannot ask for another protocol (Upgrade)"
            raise ValueError(self._refusal[1])
        if _ABSOLUTE.match(self.url):  # an absolute URL replaces the Host header (RFC 9112, 3.2.2)
            asked = _ABSOLUTE.sub(b"", self.url)
            host = _AUTHORITY_END.split(asked, 1)[0]
            self.headers[:] = [(name, host if name == b"host" else value) for name, value in self.headers]
        self._head = 0
        self._end_head()
        super().on_headers_complete()
        if is_upgrade:  # the answer is HTTP/1.1, but the client may continue in the other protocol
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - problem details say more
        """Refuse a request that cannot be parsed, with problem details."""
        self._refuse(*self._refusal)

    def on_response_complete(self) -> None:
        """Start the reader's time limit for the end of an answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._begin_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if its client does not read."""
        super().timeout_keep_alive_handler()
        self._begin_reader()

    def pause_writing(self) -> None:
        """Start the reader's time limit."""
        super().pause_writing()
        self._begin_reader()

    def resume_writing(self) -> None:
        """Stop the reader's time limit."""
        self._end_reader()
        super().resume_writing()

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        document = {"type": "about:blank", "title": TITLES[status], "status": int(status), "detail": detail}
        body = msgspec.json.encode(document)
        head = (
            f"HTTP/1.1 {int(status)} {status.phrase}\r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._begin_reader()

    def _begin_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            self._begin_head()  # uvicorn reads no further while the previous request is being answered

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _begin_reader(self) -> None:
        if self._reader_timer is None:
            self._reader_timer = self.loop.call_later(READER_SECONDS, self.transport.abort)

    def _end_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None


def bounded_protocol(trusted: Sequence[Network]) -> type[BoundedHttpProtocol]:
    """Return the protocol class for a server behind these proxies, for uvicorn's ``http`` setting."""
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), {"trusted": tuple(trusted)})
