"""A connection that reads no more, though it says that it is connected, is noticed in seconds, in every role."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import httpx
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from ledger.nats.client import PING_SECONDS, PINGS_UNANSWERED, LedgerClient
from tests.support.builders import purchase
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually, wait_until

ROLES = ("intake", "decisions", "projections", "guard", "seal", "archive", "dashboard")


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[LedgerClient]:
    """Collect every connection that roles open from here on."""
    opened: list[LedgerClient] = []
    begin = LedgerClient.__init__

    def note(client: LedgerClient) -> None:
        begin(client)
        opened.append(client)

    monkeypatch.setattr(LedgerClient, "__init__", note)
    return opened


def cancelled(client: LedgerClient) -> None:
    """End the reader."""
    assert client._reading_task is not None
    client._reading_task.cancel()


def silent(client: LedgerClient) -> None:
    """End the reader so that nothing but the missing pongs can show it: the task looks alive."""
    reader = client._reading_task
    assert reader is not None
    client._reading_task = asyncio.create_task(asyncio.Event().wait())
    reader.cancel()


@pytest.mark.parametrize("kill", [cancelled, silent])
async def test_roles_serve_again_after_all_their_connections_died(
    session: Session, monkeypatch: pytest.MonkeyPatch, clients: list[LedgerClient], kill: Callable[[LedgerClient], None]
) -> None:
    for module in ("consumers.runtime.broker", "ledger.nats.client"):
        monkeypatch.setattr(f"{module}.PING_SECONDS", 0.3)
    async with running(session, ROLES, where=ListenAddress(port=0)) as services:
        ours = [*clients, session.client]
        upstream = Upstream(session, await session.upstream("test"))
        upstream.timeout_seconds = 5
        await upstream.set_up_basics()
        assert len(ours) > len(ROLES)
        for client in ours[:-1] if kill is silent else ours:  # the session's was opened before, with the usual pings
            kill(client)
        await wait_until(
            lambda: all(client.stats["reconnects"] >= 1 for client in ours if client is not session.client)
        )
        await _serves(upstream, services)
        assert all(client.is_connected for client in ours)
        assert not any(service.failed.done() for service in services)


async def _serves(upstream: Upstream, services: Sequence[object]) -> None:
    """Assert that facts are recorded, actions are taken, views follow and the API answers."""
    await eventually(lambda: upstream.record(purchase("after")), passing=(Exception,), every_seconds=0.1)
    answer = await eventually(lambda: upstream.action("r-after"), passing=(Exception,), every_seconds=0.1)
    assert answer["outcome"] == "taken", answer
    (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
    end = await upstream.session.log.last_position()
    headers = {"Authorization": f"Bearer {dashboard.token}"}
    async with httpx.AsyncClient(base_url=dashboard.address, headers=headers) as http:
        await eventually(
            lambda: http.get("/api/v1/projections"),
            lambda answer: answer.status_code == 200 and all(one["position"] >= end for one in answer.json()["items"]),
        )


async def test_every_connection_of_every_role_is_pinged_often(session: Session, clients: list[LedgerClient]) -> None:
    async with running(session, ROLES, where=ListenAddress(port=0)):
        assert clients
        for client in [*clients, session.client]:
            assert client.options["ping_interval"] == PING_SECONDS <= 5
            assert client.options["max_outstanding_pings"] == PINGS_UNANSWERED <= 2
