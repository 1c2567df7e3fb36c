"""An open ledger: its server (embedded or given), connections and verified streams."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from contextlib import AsyncExitStack, suppress
from functools import cached_property
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from app.runtime.server_options import server_options, upstream_options
from app.runtime.stream_setup import TOLERATED_FIELDS, create_streams
from config import topology
from config.nats_accounts import INCLUDE
from consumers.runtime.precedence import Precedence
from ledger.archive.earlier_events import read_earlier_events
from ledger.archive.stream_retirement import UnfinishedRetirementError, unfinished_retirement
from ledger.errors import (
    DirectoryMovedError,
    LedgerError,
    MissingExtraError,
    MissingStreamsError,
    NoLedgerError,
    UnavailableError,
    UpgradeNeededError,
)
from ledger.nats.client import connect
from ledger.nats.connection_options import ConnectionOptions
from ledger.nats.embedded_server import EmbeddedServer
from ledger.nats.incidents import report
from ledger.store.log import Log
from ledger.store.streams import (
    REPLICAS_FIELD,
    has_fields,
    retired_in,
    server_problem,
    stream_config,
    update_stream,
    verify_server,
    verify_streams,
    verify_version,
)
from ledger.transparency.sealer import seal_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from config.settings import Settings
    from ledger.nats.inbox_routes import SourceRoutes
    from projections.engine.storage import ViewStore
from ledger.nats.client import LedgerClient

_log = logging.getLogger(__name__)
UPSTREAM = "upstream"
"""The server's user for all sources."""
_WATCH_SECONDS = 0.5
_FREE_BYTES = 32 * 1024 * 1024


class Session:
    """An open ledger. ``client`` is the ledger's own connection; ``upstream_url`` is for sources."""

    client: LedgerClient
    log: Log
    rejected: Log
    failed: asyncio.Future[None]
    """Fails if the data directory is moved away; the process cannot continue then."""

    def __init__(
        self,
        settings: Settings,
        *,
        reads_only: bool = False,
        upgrades: bool = False,
        creates: bool | None = None,
        examines: bool = False,
        below_up: bool = False,
        retires: Callable[[int, int], None] | None = None,
    ) -> None:
        """Create a session, to be used as a context.

        With ``upgrades`` the user of ``nats_url`` is the operator, and streams of an earlier version are changed.
        Missing streams are created only with ``creates``. Its default is true on the embedded server, unless the
        session ``reads_only``. With ``examines`` nothing is verified or changed, for `admin doctor`. A process
        ``below_up`` leaves the start of the embedded server to `up`. A session that ``retires`` first completes a
        retirement of events that was interrupted, with that function for its progress.
        """
        self.settings = settings
        self._upgrades = upgrades
        self._examines = examines
        self._retires = retires
        self.creates = settings.nats_url is None and not reads_only if creates is None else creates
        self.data_dir = settings.folder
        self._reads_only = reads_only
        self.below_up = below_up
        self.precedence = Precedence()
        """That of decisions in the roles of this session."""
        self._server: EmbeddedServer | None = None
        self._watching: asyncio.Task[None] | None = None
        self._clients: list[LedgerClient] = []
        self.created: list[str] = []
        """Names of the streams that this session created."""
        self._options = server_options(settings)
        self._upstream_options = upstream_options(settings)

    @cached_property
    def views(self) -> ViewStore:
        """The place of the ledger's views.

        Raises:
            MissingExtraError: they are in PostgreSQL, and its driver is not installed.

        """
        from projections.engine.sqlite_store import SqliteStore

        if self.settings.database_url is None:
            return SqliteStore(self.data_dir / "views")
        if find_spec("psycopg") is None:
            raise MissingExtraError("views in PostgreSQL (database_url)", "postgres")
        from projections.engine.postgres_store import PostgresStore

        return PostgresStore(self.settings.database_url)

    @property
    def embedded(self) -> bool:
        """The session runs the server itself."""
        return self.settings.nats_url is None

    @property
    def server(self) -> ConnectionOptions:
        """The options with which the ledger's processes reach the server; known after the session has begun."""
        assert self._options is not None
        return self._options

    @property
    def upstream_server(self) -> ConnectionOptions:
        """The options with which a source reaches the server."""
        assert self._upstream_options is not None
        return self._upstream_options

    @property
    def url(self) -> str:
        """The server's URL, with user and password if it has them."""
        return self.server.url()

    @property
    def upstream_url(self) -> str:
        """The server's URL for a source, with user and password if it has them."""
        return self.upstream_server.url()

    async def __aenter__(self) -> Self:
        self.failed = asyncio.get_running_loop().create_future()
        if self.embedded:
            if sys.platform == "win32":
                raise LedgerError("Windows has no embedded server: name one elsewhere with --nats-url")
            if self._reads_only and not (self.data_dir / "server" / "passwords.json").exists():
                raise NoLedgerError(
                    f"{self.data_dir} holds no ledger: name the right one with --data-dir, or create one with "
                    "`resolution-ledger up` or `resolution-ledger demo`"
                )
            config = Path(str(resources.files("config") / "nats" / "nats-server.conf"))
            self._server = EmbeddedServer(
                self.data_dir.resolve(), config, self.settings.nats_server, INCLUDE, starts=not self.below_up
            )
            await asyncio.to_thread(self._server.start)
            self._watching = asyncio.create_task(self._watch_server())
            self._options = ConnectionOptions.of(self._server.url("ledger"))
            self._upstream_options = ConnectionOptions.of(self._server.url(UPSTREAM))
        try:
            self.client = await self.connection("session")
            await self._open_streams()
            self.log = await Log.open(self.client, topology.LEDGER)
            self.log.on_remade = self._fail
            read_earlier_events(self.log, self.data_dir)
            self.rejected = await Log.open(self.client, topology.REJECTED)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open_streams(self) -> None:
        """Check the server and the ledger's streams; create missing ones if this session does that."""
        if self._retires is None:
            await self._require_no_retirement()
        if self._examines:
            verify_version(self.client)
            try:
                ledger = await stream_config(self.client, topology.LEDGER)
            except UnavailableError as error:
                advice = "in a cluster more than half of the servers with a copy have to run: see their logs"
                raise UnavailableError(f"{error}; {advice}") from error
            if ledger is None:
                raise self._without_log(MissingStreamsError([topology.LEDGER]))
            return
        await verify_server(self.client, allow_lazy_fsync=self.settings.allow_lazy_fsync)
        if self._retires is not None and await unfinished_retirement(self.client, topology.LEDGER) is not None:
            from app.runtime.retirement import go_on

            await go_on(self, self._retires)
        await self._upgrade()
        if self.creates:
            self.created = await create_streams(self.client, self.settings.replicas)
        else:
            try:
                retired = retired_in(await stream_config(self.client, topology.LEDGER))
                streams = topology.stream_configs(1, retired.until)
                await verify_streams(self.client, streams, TOLERATED_FIELDS)
            except MissingStreamsError as error:
                raise self._without_log(error) from error

    async def _require_no_retirement(self) -> None:
        """Check that no retirement of events is unfinished, in which the stream is not what it should be.

        Raises:
            UnfinishedRetirementError: one is.

        """
        with suppress(UnavailableError):  # the checks that follow say more
            if (retirement := await unfinished_retirement(self.client, topology.LEDGER)) is not None:
                raise UnfinishedRetirementError(topology.LEDGER, retirement.until)

    def _without_log(self, error: MissingStreamsError) -> LedgerError:
        """Return the error about missing streams; if a seal exists here, the log was lost."""
        if topology.LEDGER not in error.streams or not seal_folder(self.data_dir).is_begun:
            return error
        return LedgerError(
            f"the NATS server has no stream {topology.LEDGER}, though a log was sealed in {self.data_dir / 'seal'}: it "
            "is another ledger's server, or it has lost every event. In that case keep its folder as evidence, copy "
            "`seal` into a new data directory, and fill that: `resolution-ledger admin restore ARCHIVE --data-dir "
            "NEW`"
        )

    async def _upgrade(self) -> None:
        """Bound an inbox of an earlier version, which senders could fill or keep busy with open batches.

        On the embedded server, streams that the earlier version did not have are created, too.

        Raises:
            UpgradeNeededError: the server is not embedded.

        """
        replicas = self.settings.replicas
        inbox = topology.stream_configs(replicas)[0]
        config = await stream_config(self.client, topology.INBOX)
        if config is None or not has_fields(config, topology.earlier_inbox_fields(replicas)):
            return
        if not (self.embedded or self._upgrades):
            raise UpgradeNeededError(topology.INBOX)
        operator = await self.connection("upgrade", user="operator")
        end = await (await Log.open(self.client, topology.LEDGER)).last_position()
        inbox[REPLICAS_FIELD] = max(replicas, config.get(REPLICAS_FIELD, 1))
        await update_stream(operator, inbox, {topology.TOKENS_SINCE: str(end)})
        _log.info("stream %s has this version's bounds now", topology.INBOX)
        if self.embedded:
            self.created = await create_streams(self.client, replicas)

    @property
    def routes(self) -> SourceRoutes | None:
        """The routes of known sources to their own inbox streams; None with a server of the user's own."""
        return self._server.routes if self._server else None

    @property
    def embedded_server(self) -> EmbeddedServer | None:
        """The server that this session runs; None with a server of the user's own."""
        return self._server

    @property
    def copy_source(self) -> Path | None:
        """The directory that this data directory was copied from, if it still exists and holds the same ledger."""
        return self._server.copy_source() if self._server else None

    async def connection(self, name: str, *, user: str = "ledger") -> LedgerClient:
        """Open another connection, which the session closes at its end."""
        if user == UPSTREAM:
            server = self.upstream_server
        else:
            server = self.server if self._server is None else ConnectionOptions.of(self._server.url(user))
        client = await connect(server, name)
        self._clients.append(client)
        return client

    async def upstream(self, name: str) -> LedgerClient:
        """Open a connection with a source's permissions: publish to inboxes and send requests."""
        return await self.connection(name, user=UPSTREAM)

    async def close(self) -> None:
        """Close the connections; release the embedded server, which stops without users."""
        if self._watching:
            self._watching.cancel()
            self._watching = None
        clients, self._clients = self._clients, []
        server, self._server = self._server, None
        if "views" in self.__dict__:
            self.views.close()
        async with AsyncExitStack() as stack:  # an error of one connection keeps neither the others nor the server
            if server is not None:
                stack.push_async_callback(asyncio.to_thread, server.stop)
            for client in reversed(clients):
                if not client.is_closed:
                    stack.push_async_callback(client.close)

    async def _watch_server(self) -> None:
        """Restart the embedded server whenever it ends; connections find it at the same address.

        After a full disk its streams refuse writes even when there is space again, until it is restarted. That happens
        here, too.
        """
        while self._server is not None:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                if self._server is not None and await asyncio.to_thread(self._server.revive):
                    _log.warning("the embedded server had ended and was restarted")
                elif self._server is not None and await self._restart_after_full_disk():
                    _log.warning("the disk has space again: the embedded server was restarted")
            except DirectoryMovedError as error:
                self._fail(error)
                return
            except (LedgerError, OSError) as error:
                _log.warning("the embedded server cannot be started: %s", error)
            except Exception as error:  # noqa: BLE001 - the next round tries again
                report("the embedded server could not be watched", error, error)

    def _fail(self, error: LedgerError) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()  # only roles await it; a short command ends before

    async def _restart_after_full_disk(self) -> bool:
        """Restart the server if it met a full disk and there is space now; return whether it was restarted."""
        if self._server is None or not self._clients or self.below_up:
            return False
        pid = self._server.pid()  # before the check, since another process may restart the server meanwhile
        if "write error" not in await server_problem(self._clients[0]):
            return False
        if shutil.disk_usage(self.data_dir).free <= _FREE_BYTES:
            return False
        return await asyncio.to_thread(self._server.restart, pid)
