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
from tests.support.builders import event, gbp
from tests.support.upstreams import Upstream

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
        async with asyncio.timeout(15):
            while any(client.stats["reconnects"] < 1 for client in ours if client is not session.client):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await _serves(upstream, services)
        assert all(client.is_connected for client in ours)
        assert not any(service.failed.done() for service in services)


async def _serves(upstream: Upstream, services: Sequence[object]) -> None:
    """Facts are recorded, actions are taken, views follow, the API answers."""
    fact = event("after", "purchase.completed", order_id="O-1", total=gbp("1.00"))
    await _again(lambda: upstream.record(fact))
    await _again(lambda: upstream.action("r-after"))
    (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
    end = await upstream.session.log.last_position()
    headers = {"Authorization": f"Bearer {dashboard.token}"}
    async with httpx.AsyncClient(base_url=dashboard.address, headers=headers) as http:
        while True:
            answer = await http.get("/api/v1/projections")
            if answer.status_code == 200 and all(one["position"] >= end for one in answer.json()["items"]):
                return
            await asyncio.sleep(0.05)


async def _again(ask: Callable[[], object]) -> None:
    while True:
        try:
            answer = await ask()  # type: ignore[misc]
        except Exception:  # noqa: BLE001 - until it answers, within the time of the test
            await asyncio.sleep(0.1)
        else:
            assert not isinstance(answer, dict) or answer["outcome"] == "taken", answer
            return


async def test_every_connection_of_every_role_is_pinged_often(session: Session, clients: list[LedgerClient]) -> None:
    async with running(session, ROLES, where=ListenAddress(port=0)):
        assert clients
        for client in [*clients, session.client]:
            assert client.options["ping_interval"] == PING_SECONDS <= 5
            assert client.options["max_outstanding_pings"] == PINGS_UNANSWERED <= 2
