"""The dashboard as a service: the HTTP API, with a token of its own."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import uvicorn

from config import topology
from dashboard.application import make_api
from dashboard.auth.authorization import Authorizer
from dashboard.context import ApiContext
from dashboard.http.protocol import bounded_protocol
from dashboard.listen_address import token_of
from dashboard.view_reader import ViewReader
from dashboard.view_updates import ViewUpdates
from ledger.encryption.keyring import Keyring
from ledger.errors import LedgerError
from ledger.nats.client import connect
from ledger.store.log import Log
from ledger.store.role_status import RoleStatus

if TYPE_CHECKING:
    from pathlib import Path

    from dashboard.listen_address import ListenAddress
    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer

_GRACE_SECONDS = 2


class DashboardService:
    """Start it, and wait for ``failed``. Listens on loopback, unless told otherwise."""

    def __init__(self, server: NatsServer, stream: str, data_dir: Path, where: ListenAddress) -> None:
        self._nats = server
        self._stream = stream
        self._data_dir = data_dir
        self._where = where
        self._client: LedgerClient | None = None
        self._views: ViewReader | None = None
        self._news: ViewUpdates | None = None
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.token = token_of(data_dir)
        self.address = ""

    def status(self) -> RoleStatus:
        """Return that the dashboard lives: the loop that answers this serves HTTP, too."""
        return RoleStatus(role="dashboard")

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            LedgerError: it may not listen there, or the port that was asked for is taken.

        """
        where = self._where.checked()
        listening = where.bound() if where.descriptor is None else socket.socket(fileno=where.descriptor)
        self._client = await connect(self._nats, "dashboard")
        log = await Log.open(self._client, self._stream)
        keys, news = await Keyring.open(self._client), ViewUpdates(self._client)
        await keys.watch()
        self._news = news
        await news.start()
        self._views = ViewReader(self._data_dir, log)
        house = ApiContext(
            views=self._views,
            log=log,
            rejected=await Log.open(self._client, topology.REJECTED),
            keys=keys,
            news=news,
            doors=Authorizer(self._data_dir, self.token, self._views, encrypted=where.encrypted),
            client=self._client,
            data_dir=self._data_dir,
            hosts=where.host_names(),
        )
        config = uvicorn.Config(
            make_api(house),
            log_level="error",
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            http=bounded_protocol(where.trusted_networks()),
            proxy_headers=bool(where.trusted_proxies),
            forwarded_allow_ips=list(where.trusted_proxies),
            ssl_certfile=where.certificate,
            ssl_keyfile=where.key,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self._server = uvicorn.Server(config)
        self.address = where.url(listening)
        self._serving = asyncio.create_task(self._server._serve(sockets=[listening]))  # noqa: SLF001 - signals are ours
        self._serving.add_done_callback(self._note_end)
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)

    def _note_end(self, serving: asyncio.Task[None]) -> None:
        """Fail where the HTTP server ends by itself: a role that serves nothing is to be started again."""
        stopping = self._server is None or self._server.should_exit
        if not serving.cancelled() and (serving.exception() or not stopping) and not self.failed.done():
            self.failed.set_exception(LedgerError(f"the HTTP server ended: {serving.exception() or 'unexpectedly'}"))

    async def stop(self) -> None:
        """Leave; who is connected is cut off after a moment."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.gather(self._serving, return_exceptions=True)
        if self._news is not None:
            await self._news.stop()
        if self._views is not None:
            self._views.close()
        if self._client is not None:
            await self._client.close()
