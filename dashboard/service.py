"""The dashboard as a service: an HTTP server, and the operator's token."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from config import topology
from dashboard.application import make_api
from dashboard.auth.authorization import Authorizer
from dashboard.auth.sessions import SessionBook
from dashboard.auth.tokens import Tokens
from dashboard.certificate_ends import certificate_ends
from dashboard.context import ApiContext
from dashboard.http.protocol import bounded_protocol
from dashboard.listen_address import token_of
from dashboard.metrics import Metrics
from dashboard.report_cache import ReportCache
from dashboard.routes.reports import prepare_reports
from dashboard.view_reader import ViewReader
from dashboard.view_updates import ViewUpdates
from ledger.archive.earlier_events import read_earlier_events
from ledger.background_service import RoleService, restarting
from ledger.encryption.keyring import Keyring
from ledger.errors import LedgerError
from ledger.nats.connection_options import options_of
from ledger.store.log import Log
from ledger.store.role_status import RoleStatus
from ledger.transparency.seal_mirror import SEAL_MIRROR, SealMirror
from ledger.transparency.sealer import seal_folder

if TYPE_CHECKING:
    from pathlib import Path

    from dashboard.auth.openid import OpenIdProvider
    from dashboard.event_gateway import EventCheck
    from dashboard.listen_address import ListenAddress
    from ledger.nats.connection_options import NatsServer
    from projections.engine.storage import ViewStore

_GRACE_SECONDS = 2
_IDLE_SECONDS = 75
"""Longer than clients keep idle connections: one that this end closes first may lose a request that is on its way."""
_PATIENCE_SECONDS = 15
"""For so long after its start the dashboard waits for views that do not exist yet: all roles may start together."""


class DashboardService(RoleService):
    """The role that serves the HTTP API, by default on loopback; it fails if the server ends."""

    def __init__(
        self,
        server: NatsServer,
        stream: str,
        data_dir: Path,
        views: ViewStore,
        where: ListenAddress,
        check: EventCheck,
        openid: OpenIdProvider | None = None,
    ) -> None:
        super().__init__("dashboard")
        self._nats = server
        self._stream = stream
        self._data_dir, self._views = data_dir, views
        self._where = where
        self._check = check
        self._openid = openid
        self._closing = AsyncExitStack()
        self._server: uvicorn.Server | None = None
        self.token = token_of(data_dir)
        self.address = ""

    def status(self) -> RoleStatus:
        """Return the status of this role; the event loop that answers this serves HTTP, too."""
        return RoleStatus(role="dashboard")

    async def start(self) -> None:
        """Start to listen.

        Raises:
            LedgerError: the address is not allowed, or the requested port is taken.

        """
        where = self._where.checked()
        listening = where.bound() if where.descriptor is None else socket.socket(fileno=where.descriptor)
        client = await self.connection(self._nats, "dashboard")
        log = await Log.open(client, self._stream)
        log.on_remade = self.fail
        read_earlier_events(log, self._data_dir)
        keys, updates = await Keyring.open(client), ViewUpdates(client)
        await keys.watch()
        self._closing.push_async_callback(updates.stop)
        await updates.start()
        await self._check.start()
        self.spawn(self._check.follow(client))
        tokens = Tokens(client)
        await tokens.watch()
        await tokens.take_over(self._data_dir)
        views = ViewReader(self._views, log, patience_seconds=_PATIENCE_SECONDS)
        self._closing.callback(views.close)
        ends = partial(certificate_ends, options_of(self._nats).servers, self._views.addresses, where.certificate)
        metrics = Metrics(views, client, self._data_dir, ends)
        self._closing.push_async_callback(metrics.stop)
        context = ApiContext(
            views=views,
            log=log,
            rejected=await Log.open(client, topology.REJECTED),
            keys=keys,
            updates=updates,
            authorizer=Authorizer(
                tokens,
                self.token,
                views,
                await SessionBook.open(client),
                encrypted=where.encrypted,
                has_openid=self._openid is not None,
            ),
            client=client,
            check=self._check,
            seal=seal_folder(self._data_dir),
            seal_mirror=SealMirror(log, topology.SEAL_SUBJECT, self._data_dir / SEAL_MIRROR),
            hosts=where.host_names(),
            metrics=metrics,
            replaying=asyncio.Semaphore(1),
            reports=ReportCache(views),
        )
        self.spawn(restarting("the preparation of reports", partial(prepare_reports, context)))
        self.spawn(restarting("the renewal of reports", context.reports.keep_renewed))
        self._server = uvicorn.Server(self._config(context))
        self.address = where.url(listening)
        serving = asyncio.create_task(self._server._serve(sockets=[listening]))  # noqa: SLF001 - signals are ours
        serving.add_done_callback(self._note_server_end)
        self._closing.push_async_callback(self._end_server, serving)
        while not self._server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)

    def _config(self, context: ApiContext) -> uvicorn.Config:
        where = self._where
        return uvicorn.Config(
            make_api(context, self._openid),
            log_config=None,
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
            timeout_keep_alive=_IDLE_SECONDS,
        )

    def _note_server_end(self, serving: asyncio.Task[None]) -> None:
        """Fail if the HTTP server ends by itself, so that this role is restarted."""
        stopping = self._server is None or self._server.should_exit
        if not serving.cancelled() and (serving.exception() or not stopping):
            self.fail(LedgerError(f"the HTTP server ended: {serving.exception() or 'unexpectedly'}"))

    async def _end_server(self, serving: asyncio.Task[None]) -> None:
        if self._server is not None:
            self._server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)

    async def stop(self) -> None:
        """Stop the server; open connections are closed after a short time."""
        await self._closing.aclose()
        await super().stop()
