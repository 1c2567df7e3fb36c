"""A cluster of which one server is named: its others are discovered, and get the credentials, too."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import nats.errors
import pytest

from app.runtime.roles import ROLES, running
from app.runtime.session import Session
from dashboard.listen_address import ListenAddress
from ledger.nats.client import LedgerClient
from tests.support.builders import purchase
from tests.support.cluster_sessions import cluster_session
from tests.support.nats_servers import Cluster
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.integration

PASSWORD = "p@ss/w:rd"
USERS = f'authorization {{ users: [ {{ user: "ledger", password: "{PASSWORD}" }} ] }}'
IN_URL = "p%40ss%2Fw%3Ard"


@pytest.fixture
async def named_one(tmp_path: Path) -> AsyncIterator[tuple[Session, Cluster]]:
    """Make a ledger on three servers, configured with the address of one."""
    with Cluster(tmp_path / "cluster", USERS) as cluster:
        url = f"nats://ledger:{IN_URL}@127.0.0.1:{cluster.servers[0].port}"
        async with cluster_session(url, tmp_path) as session:
            yield session, cluster


async def test_every_role_goes_on_through_servers_that_it_was_not_told(
    named_one: tuple[Session, Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, cluster = named_one
    clients = [session.client]
    begin = LedgerClient.__init__

    def note(client: LedgerClient) -> None:
        begin(client)
        clients.append(client)

    monkeypatch.setattr(LedgerClient, "__init__", note)
    async with running(session, ROLES, where=ListenAddress(port=0)) as services:
        upstream = Upstream(session, await session.upstream("test"))
        await ask_until_answered(upstream.set_up_basics)
        assert len(clients) > len(ROLES)
        await asyncio.to_thread(cluster.servers[0].stop, signal.SIGKILL)
        await wait_until(
            lambda: all(
                client.is_connected and _port_of(client) != cluster.servers[0].port
                for client in clients
                if not client.is_closed
            )
        )
        # An election takes up to eight seconds.
        await ask_until_answered(lambda: upstream.record(purchase("after")))
        assert (await ask_until_answered(lambda: upstream.action("r-after")))["outcome"] == "taken"
        assert not any(service.failed.done() for service in services)


async def ask_until_answered[T](ask: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request until it has an answer, as an upstream does: its id makes it harmless."""
    return await eventually(
        ask,
        lambda _: True,
        timeout_seconds=60,
        passing=(nats.errors.Error, TimeoutError, AssertionError),
        every_seconds=0.2,
    )


def _port_of(client: LedgerClient) -> int | None:
    return client.connected_url.port if client.connected_url else None
