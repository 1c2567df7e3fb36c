"""Sessions of browsers: they are listed, ended and shared by dashboards, survive a restart, and end for leavers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from config import topology
from dashboard.auth import sessions
from dashboard.auth.authorization import COOKIE
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from ledger.store.log import Log
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.http_api import CHECKED, accesses, client_with_token, served_with_tokens
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@asynccontextmanager
async def signed_in(address: str, token: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=address, timeout=20, event_hooks=CHECKED) as browser:
        assert (await browser.post("/api/v1/session", json={"token": token})).status_code == 204
        yield browser


async def listed(browser: httpx.AsyncClient) -> list[Document]:
    items: list[Document] = (await browser.get("/api/v1/sessions")).json()["items"]
    return items


async def end(browser: httpx.AsyncClient, one: Document) -> int:
    return (await browser.delete(f"/api/v1/sessions/{one['id']}")).status_code


async def status(browser: httpx.AsyncClient) -> int:
    return (await browser.get("/api/v1/me")).status_code


async def refused(browser: httpx.AsyncClient) -> None:
    """Wait until a caller is refused: within a second of the cache, and of a view that reads the log."""
    await eventually(partial(status, browser), lambda code: code == 401, timeout_seconds=5, every_seconds=0.1)


async def test_people_see_and_end_their_own_sessions_operators_all(session: Session) -> None:
    async with (
        served_with_tokens(session) as (address, tokens),
        signed_in(address, tokens["manager"]) as manager,
        signed_in(address, tokens["agent"]) as phone,
        signed_in(address, tokens["agent"]) as agent,
        signed_in(address, tokens["auditor"]) as auditor,
        signed_in(address, tokens["operator"]) as operator,
    ):
        own = await listed(agent)
        assert [(one["person_id"], one["role"], one["current"]) for one in own] == [
            ("A-1", "agent", True),
            ("A-1", "agent", False),
        ]
        everything = await listed(operator)
        people = ["operator", "auditor", "A-1", "A-1", "M-1"]
        assert [one["person_id"] or one["name"] for one in everything] == people  # the newest first
        assert [one["id"] for one in await listed(auditor)] == [one["id"] for one in everything]
        of_operator, of_manager = everything[0], everything[-1]
        assert await end(auditor, of_operator) == 403
        assert await end(agent, of_manager) == 404
        assert await end(manager, of_manager | {"id": "nonsense"}) == 404
        assert [await status(one) for one in (manager, phone, agent, operator)] == [200] * 4
        assert await end(agent, own[1]) == 204
        assert await status(phone) == 401
        assert await end(agent, own[1]) == 404
        assert await end(operator, of_manager) == 204
        assert await status(manager) == 401
        assert (await accesses(session))[-2:] == [
            ("A-1", f"session ended: {own[1]['id']} of A-1"),
            ("operator", f"session ended: {of_manager['id']} of M-1"),
        ]
        await assert_without_secrets(session, own[0]["id"], (agent.cookies[COOKIE], tokens["agent"], "A-1", "agent"))
        agent.headers["Sec-Fetch-Site"] = "cross-site"
        assert await end(agent, own[0]) == 403
        await Tokens(session.client).revoke("agent")
        names = ["operator", "auditor"]
        await eventually(lambda: listed(operator), lambda found: [one["name"] for one in found] == names)


async def assert_without_secrets(session: Session, session_id: str, texts: Iterable[str]) -> None:
    """Assert that the bucket holds a session, and neither its secrets nor its person."""
    kept = await (await Log.unstamped(session.client, topology.SESSIONS)).read_subject(">")
    (own,) = [one for one in kept if one.subject == f"$KV.ledger-sessions.{session_id}"]
    for text in texts:
        assert text.encode() not in own.data
        assert text not in own.subject


async def test_dashboards_share_sessions_which_outlive_them(session: Session) -> None:
    @asynccontextmanager
    async def another() -> AsyncIterator[DashboardService]:
        async with running(session, ["dashboard"], where=ListenAddress(port=0)) as services:
            (found,) = [one for one in services if isinstance(one, DashboardService)]
            yield found

    async with served_with_tokens(session) as (address, tokens):
        async with another() as second:
            async with (
                signed_in(second.address, tokens["manager"]) as beside,
                signed_in(address, tokens["agent"]) as one,
            ):
                here = httpx.AsyncClient(base_url=address, cookies={COOKIE: beside.cookies[COOKIE]})
                there = httpx.AsyncClient(base_url=second.address, cookies={COOKIE: one.cookies[COOKIE]})
                assert [await status(here), await status(there)] == [200, 200]
                assert (await one.delete("/api/v1/session")).status_code == 204
                await refused(there)
                (own,) = await listed(here)
                assert await end(here, own) == 204
                await refused(beside)
                await here.aclose()
                await there.aclose()
            async with signed_in(second.address, tokens["manager"]) as left_open:
                cookie = left_open.cookies[COOKIE]
        async with another() as third, httpx.AsyncClient(base_url=third.address, cookies={COOKIE: cookie}) as again:
            assert await status(again) == 200


async def test_who_leaves_loses_token_session_and_stream(session: Session) -> None:
    async with (
        served_with_tokens(session) as (address, tokens),
        signed_in(address, tokens["agent"]) as browser,
        signed_in(address, tokens["manager"]) as manager,
        client_with_token(address, tokens["agent"]) as bearer,
        client_with_token(address, tokens["operator"]) as operator,
    ):
        staff = Upstream(session, await session.upstream("people"))
        async with browser.stream("GET", "/api/v1/stream") as stream:
            assert stream.status_code == 200
            await staff.record(event("left", "employee.left", time="2026-02-01T00:00:00Z", employee_id="A-1"))
            await refused(bearer)
            await refused(browser)
            async with asyncio.timeout(5):
                async for _chunk in stream.aiter_raw():  # it ends
                    pass
        again = await browser.post("/api/v1/session", json={"token": tokens["agent"]})
        assert (again.status_code, "left the company" in again.json()["detail"]) == (401, True)
        assert [one["person_id"] for one in await listed(operator)] == ["M-1"]
        assert [await status(manager), await status(operator)] == [200, 200]
        await staff.record(
            event("back", "employee.joined", time="2026-03-01T00:00:00Z", employee_id="A-1", role="agent", team_ids=[])
        )
        await eventually(partial(status, bearer), lambda code: code == 200, every_seconds=0.1)
        assert await status(browser) == 200


async def test_without_the_server_nobody_is_signed_out_and_a_sign_out_counts(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session.embedded_server
    server = session.embedded_server.pid()
    assert server
    async with (
        served_with_tokens(session) as (address, tokens),
        signed_in(address, tokens["operator"]) as staying,
        signed_in(address, tokens["auditor"]) as going,
    ):
        copy = going.cookies[COOKIE]
        monkeypatch.setattr(sessions, "_PATIENCE_SECONDS", 0.3)
        monkeypatch.setattr(sessions, "_CACHE_SECONDS", -1.0)
        os.kill(server, signal.SIGSTOP)
        try:
            unsure, signed_out = await asyncio.gather(staying.get("/api/v1/me"), going.delete("/api/v1/session"))
            assert (unsure.status_code, unsure.headers["Retry-After"]) == (503, "1")
            assert (await staying.get("/api/v1/session")).status_code == 503
            assert signed_out.status_code == 204
        finally:
            os.kill(server, signal.SIGCONT)
        assert COOKIE not in going.cookies
        await eventually(partial(status, staying), lambda code: code == 200)
        going.cookies.set(COOKIE, copy)
        assert await status(going) == 401
        log = await Log.unstamped(session.client, topology.SESSIONS)
        await eventually(partial(log.read_subject, ">"), lambda kept: len(kept) == 1)
