"""Clients of the HTTP API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from app.runtime.roles import running
from app.runtime.session import Session
from dashboard.auth.tokens import ROLES, Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from tests.support.documents import Document
from tests.support.openapi import check_answer
from tests.support.organisations import BASIC_POLICY, FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of
from tests.support.waiting import eventually

CHECKED = {"response": [check_answer]}
"""The hook of clients by which each answer is compared with the OpenAPI document."""


async def read_current(client: httpx.AsyncClient, path: str, **query: Any) -> Document:
    """Read a resource of the API once its view is at the end of the log; return the document."""

    def is_current(answer: httpx.Response) -> bool:
        return answer.status_code == 200 and answer.json()["lag_seconds"] == 0

    document: Document = (await eventually(lambda: client.get(f"/api/v1/{path}", params=query), is_current)).json()
    return document


@asynccontextmanager
async def dashboard_of(session: Session) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the API of a ledger; yield a client with the operator's token, whose answers are checked."""
    async with running(session, ["projections", "dashboard"], where=ListenAddress(port=0)) as services:
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        async with client_with_token(dashboard.address, dashboard.token) as client:
            yield client


@asynccontextmanager
async def served(session: Session) -> AsyncIterator[tuple[Upstream, httpx.AsyncClient]]:
    """Serve the API of a ledger with some events; yield an upstream and a client with the operator's token."""
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics(BASIC_POLICY | {"default_role": "agent"})
        for number in range(3):
            assert (await upstream.action(f"r-{number}", reason=f"late {number}"))["outcome"] == "taken"
        async with dashboard_of(session) as client:
            yield upstream, client


PERSON_OF_ROLE = {"agent": "A-1", "manager": "M-1"}
"""Roles whose token is that of a person."""


@asynccontextmanager
async def served_with_tokens(
    session: Session, policy: Document = FULL_POLICY
) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Serve the API over actions of four people; yield its address and a token of each role."""
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream, policy)
        for agent in ("A-1", "A-2", "D-1", "M-2"):
            assert (await upstream.action(f"r-{agent}", "5.00", agent_id=agent))["outcome"] == "taken"
            assert (await upstream.action(f"e-{agent}", "900.00", agent_id=agent))["outcome"] == "escalate"
        async with running(session, ["projections", "seal", "dashboard"], where=ListenAddress(port=0)) as services:
            (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
            tokens = Tokens(session.client)
            yield (
                dashboard.address,
                {role: await tokens.make(role, role, PERSON_OF_ROLE.get(role), None) for role in ROLES},
            )


async def accesses(session: Session) -> list[tuple[str, str]]:
    """Return each recorded access over HTTP: the person and the access."""
    events = [json.loads(one.data) for one in await session.log.read_subject("ledger.access")]
    found: list[Document] = [one["data"] for one in events if one["data"]["via"] == "http"]
    return [(one["who"], one["what"]) for one in found]


def client_with_token(address: str, token: str) -> httpx.AsyncClient:
    """Return a client that shows this token."""
    return httpx.AsyncClient(
        base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=20, event_hooks=CHECKED
    )
