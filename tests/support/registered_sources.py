"""Registered sources as tests play them: each with the user that the embedded server gave to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.runtime.session import Session
from app.runtime.source_registration import changed, closed, record_change, registered
from app.runtime.source_users import source_file, update_users
from domain.events.administration import SourceRegistered, SourceStopped
from ledger.nats.client import LedgerClient, connect
from ledger.nats.connection_options import ConnectionOptions
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.organisations import FULL_POLICY, STAFF
from tests.support.upstreams import Upstream, upstream_of

PROFILES = {
    "desk": "desk",
    "other-desk": "desk",
    "till": "facts",
    "psp": "payments",
    "hr": "people",
    "approver": "approvals",
    "board": "governance",
}
"""Source -> its profile; each profile has one source, the desks are two."""


GOVERNED_POLICY: Document = FULL_POLICY | {
    "governance": {
        "policies": {"propose": ["role:director"], "approvals": 1},
        "grants": {"manager": {"per_period": "500.00", "to": "own_teams"}},
        "transfers": {"manager": "own_teams"},
        "reviews": ["role:director"],
    }
}
"""The full organisation's policy, in which directors propose policies and managers grant."""


class RegisteredSource(Upstream):
    """A source that sends everything by its own user, also what its profile does not allow."""

    async def ask(self, operation: str, /, **fields: Any) -> Document:
        """Ask for a decision under the source's own token; return the answer."""
        reply = await self.client.request(
            f"resolution.decide.{self.source}.{operation}", json.dumps(fields).encode(), timeout=10
        )
        answer: Document = json.loads(reply.data)
        return answer


class Company:
    """A ledger with an organisation, an operator and registered sources."""

    def __init__(self, operator: Upstream) -> None:
        self.operator = operator
        self.session = operator.session
        self.sources: dict[str, RegisteredSource] = {}

    async def register(self, name: str, profile: str, **rights: Any) -> RegisteredSource:
        """Register a source, and connect by the user in its file."""
        event_ = SourceRegistered(source=name, profile=profile, by="operator", **rights)
        await record_change(self.session.log, registered(event_))
        await update_users(self.session)
        client = await connect_as(self.session, name)
        self.sources[name] = RegisteredSource(self.session, client, name)
        await self.operator.wait_for_decider()
        return self.sources[name]

    async def change(self, name: str, **rights: Any) -> None:
        """Change a source, as `admin sources change` does."""
        await record_change(self.session.log, changed(name, "operator", rights))
        await update_users(self.session)
        await self.operator.wait_for_decider()

    async def stop(self, name: str) -> None:
        """Stop a source, as `admin sources stop` does."""
        await record_change(self.session.log, closed(SourceStopped(source=name, by="operator")))
        await update_users(self.session)

    def __getitem__(self, name: str) -> RegisteredSource:
        return self.sources[name]


async def connect_as(session: Session, name: str) -> LedgerClient:
    """Return a connection by the user in a source's file."""
    found = json.loads(source_file(session.data_dir, name).read_text())
    client = await connect(ConnectionOptions.of(found["nats_url"]), f"source {name}")
    session._clients.append(client)
    return client


@asynccontextmanager
async def company_of(
    session: Session, *roles: str, history: bool = False, policy: Document = GOVERNED_POLICY
) -> AsyncIterator[Company]:
    """Run intake and decisions, register a source of each profile, publish a policy and announce the staff."""
    async with upstream_of(session, *roles, history=history) as operator:
        operator.source = "owner"
        company = Company(operator)
        answer = await operator.ask("policy", request_id="p", policy=policy, published_by="owner")
        assert answer["outcome"] == "done", answer
        for name, profile in PROFILES.items():
            await company.register(name, profile)
        for employee, (role, teams, manager) in STAFF.items():
            above = {"manager_id": manager} if manager else {}
            await company["hr"].record(
                event(
                    f"join-{employee}",
                    "employee.joined",
                    "hr",
                    employee_id=employee,
                    role=role,
                    team_ids=teams,
                    **above,
                )
            )
        await operator.wait_for_decider()
        yield company
