"""HTTP connections with bounds: how many, how long a request's head may be and take, how slowly a client may read.

uvicorn bounds none of these; an application cannot, since it is called once a head is complete.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dashboard.auth.rate_limit import network_of
from dashboard.schemas import PROBLEM, TITLES

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HEAD_BYTES, HEADERS = 32_768, 100
HEAD_SECONDS, READER_SECONDS = 10.0, 30.0
"""A request's head is complete after so long; a client that reads nothing for so long is cut off."""
_CONNECTIONS = 4_096
_VERSIONS = ("1.0", "1.1")
_CODING = (b"transfer-encoding", b"chunked")
_BODY_FRAMING = (b"content-length", _CODING[0])
_ABSOLUTE, _AUTHORITY_END = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://"), re.compile(rb"[/?#]")


def most_connections() -> int:
    """Return how many connections are open at most: half of the files that this process may open."""
    if sys.platform != "win32":  # which has no such limit
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            return max(16, min(_CONNECTIONS, soft // 2))
    return _CONNECTIONS


class BoundedHttpProtocol(HttpToolsProtocol):
    """An HTTP/1.1 connection of uvicorn's that is refused or closed where it goes beyond the bounds."""

    trusted: tuple[Network, ...] = ()
    """Proxies: many clients come through one address."""
    _refusal = HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1"
    _head_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None
    _heads = _head = 0
    """Heads that began, and the number of the one that is coming: 0 between two."""
    _head_bytes = _headers = 0
    network = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Refuse a connection too many, of all or of one address."""
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        self.network = network_of(host)
        most = most_connections()
        of_one = sum(getattr(one, "network", None) == self.network for one in self.connections)
        if len(self.connections) > most or (of_one > most // 2 and not self._shares_address(host)):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open: try again in a moment")
        else:
            self._begin_head()

    def _shares_address(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or any(address in network for network in self.trusted)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._end_head()
        self._end_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; a head that goes on too long is refused."""
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
        """Count headers, trailers included; leave trailers out, since a proxy lets pass what it removes from heads."""
        self._headers += 1
        if self._headers > HEADERS:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has at most {HEADERS} headers"
            raise ValueError(self._refusal[1])
        if self._head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request on, unless two readers may see different ends of its body (RFC 9112, 6.3)."""
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
        if is_upgrade and framing:  # the parser leaves its body unread
            self._refusal = HTTPStatus.BAD_REQUEST, "a request with a body cannot ask for another protocol (Upgrade)"
            raise ValueError(self._refusal[1])
        if _ABSOLUTE.match(self.url):  # its host is the one that is asked (RFC 9112, 3.2.2)
            asked = _ABSOLUTE.sub(b"", self.url)
            host = _AUTHORITY_END.split(asked, 1)[0]
            self.headers[:] = [(name, host if name == b"host" else value) for name, value in self.headers]
        self._head = 0
        self._end_head()
        super().on_headers_complete()
        if is_upgrade:  # it is answered in HTTP/1.1; what follows it may be in another protocol
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says more
        """Refuse what cannot be parsed, by problem details."""
        self._refuse(*self._refusal)

    def on_response_complete(self) -> None:
        """Cut off a client that does not read the end of an answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._begin_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is idle, whether its client reads or not."""
        super().timeout_keep_alive_handler()
        self._begin_reader()

    def pause_writing(self) -> None:
        """Wait for a slow reader, for a while."""
        super().pause_writing()
        self._begin_reader()

    def resume_writing(self) -> None:
        """Go on: the reader is there."""
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
            self._begin_head()  # it waits for the answer to the request before it, and is not read meanwhile

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
    """Return the protocol of a server that is behind these proxies, as uvicorn's ``http`` setting takes it."""
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), {"trusted": tuple(trusted)})
