"""The HTTP API, asked byte by byte over raw sockets."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from app.runtime.roles import running
from app.runtime.session import Session
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from ledger.nats.client import LedgerClient
from tests.support.documents import Document
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import set_up_organisation, upstream_of
from tests.support.waiting import eventually


class RawAnswer(NamedTuple):
    """An answer of the server: its status (0 for none), all bytes sent, and whether it closed the connection."""

    status: int
    text: bytes
    closed: bool

    def problem(self) -> Document:
        """Return its problem details."""
        assert b"application/problem+json" in self.text, self.text
        document: Document = json.loads(self.text.partition(b"\r\n\r\n")[2])
        return document


class RawHttp:
    """A client of the HTTP API that writes and reads bytes."""

    def __init__(self, dashboard: DashboardService, client: LedgerClient) -> None:
        where = urlsplit(dashboard.address)
        assert where.hostname
        assert where.port
        self.host, self.port, self.token = where.hostname, where.port, dashboard.token
        self.address, self.tokens, self._dashboard = dashboard.address, Tokens(client), dashboard

    def connections(self) -> int:
        """Return the number of connections that the server holds open."""
        assert self._dashboard._server
        return len(self._dashboard._server.server_state.connections)

    def head(self, line: str, *headers: str, token: str | None = "", host: str = "localhost") -> bytes:
        """Return the head of a request, with the operator's token unless another or None is given."""
        shown = () if token is None else (f"Authorization: Bearer {token or self.token}",)
        return "\r\n".join((f"{line} HTTP/1.1", f"Host: {host}", *shown, *headers, "", "")).encode()

    async def send(self, data: bytes, *, seconds: float = 10, until_closed: bool = True, source: str = "") -> RawAnswer:
        """Send bytes on a new connection; return the answer when the server closes it or ``seconds`` have passed."""
        local = (source, 0) if source else None
        reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=local)
        try:
            writer.write(data)
            found, closed = b"", False
            try:
                async with asyncio.timeout(seconds):
                    while not closed:
                        more = await reader.read(65_536)
                        closed = not more
                        found += more
                        if not until_closed and b"\r\n\r\n" in found:
                            break
            except TimeoutError:
                pass
            except ConnectionError:
                closed = True
        finally:
            writer.close()
        status = re.match(rb"HTTP/1.1 (\d+)", found)
        return RawAnswer(int(status[1]) if status else 0, found, closed)


@asynccontextmanager
async def raw_http_of(session: Session, **where: Any) -> AsyncIterator[RawHttp]:
    """Serve the API of an organisation on this listen address; yield a raw client once every view is ready."""
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream, FULL_POLICY)
        where = {"port": 0} | where
        async with running(session, ["projections", "dashboard"], where=ListenAddress(**where)) as services:
            (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
            http = RawHttp(dashboard, session.client)
            async with httpx.AsyncClient(base_url=http.address, timeout=20) as client:
                await eventually(lambda: client.get("/readyz"), lambda answer: answer.status_code == 200)
            yield http
