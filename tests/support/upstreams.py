"""An upstream as tests play it: it publishes facts, asks for decisions and reads receipts over NATS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from ledger.encryption.keyring import Keyring
from ledger.nats.client import LedgerClient
from ledger.store.lease import Lease
from ledger.store.subject_tokens import token_of_source
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY, FULL_POLICY, STAFF
from tests.support.waiting import eventually


class Upstream:
    """A source beside a running ledger, with a connection of its own and nothing else."""

    def __init__(self, session: Session, client: LedgerClient, source: str = "crm") -> None:
        self.session = session
        self.client = client
        self.source = source
        self.timeout_seconds: float = 20
        self._requests = 0

    async def publish(self, fact: Document | bytes, subject: str | None = None, **options: Any) -> int:
        """Publish one event; return its sequence in the inbox once it is durable."""
        data = fact if isinstance(fact, bytes) else json.dumps(fact).encode()
        source = fact["source"] if isinstance(fact, dict) else self.source
        subject = subject or f"resolution.inbox.{token_of_source(source)}"
        reply = json.loads((await self.client.request(subject, data, timeout=10, **options)).data)
        if "error" in reply:
            raise RuntimeError(reply["error"]["description"])
        return int(reply["seq"])

    async def ask(self, operation: str, /, **fields: Any) -> Document:
        """Ask for a decision with a request of these fields; return the answer.

        Requests that an unregistered source may not send go out as an operator's, in the name of the source.
        """
        if needs_operator(operation, fields):
            client, subject = self.session.client, f"resolution.operate.{self.source}.{operation}"
        else:
            client, subject = self.client, f"resolution.decide.{self.source}.{operation}"
        reply = await client.request(subject, json.dumps(fields).encode(), timeout=self.timeout_seconds)
        answer: Document = json.loads(reply.data)
        return answer

    async def action(self, request_id: str | None = None, amount: str = "5.00", **fields: Any) -> Document:
        """Ask for an action: a refund in pounds by agent A-1, unless ``fields`` say otherwise."""
        self._requests += 1
        request = {
            "request_id": request_id or f"r-{self._requests}",
            "agent_id": "A-1",
            "kind": "refund",
            "amount": gbp(amount),
            "reason": "late",
        }
        return await self.ask("action", **(request | fields))

    async def receipt(self, identifier: str, source: str | None = None) -> Document:
        """Wait until an event is recorded or rejected; return its receipt."""
        subject = f"resolution.read.{token_of_source(source or self.source)}.receipt"

        async def read() -> Document:
            reply = await self.client.request(subject, json.dumps({"id": identifier}).encode(), timeout=10)
            answer: Document = json.loads(reply.data)
            return answer

        return await eventually(read, lambda answer: answer.get("status") != "pending")

    async def record(self, fact: Document) -> int:
        """Publish a fact and wait until it is recorded; return its position in the log."""
        await self.publish(fact)
        answer = await self.receipt(fact["id"], fact["source"])
        assert answer.get("status") == "recorded", answer
        return int(answer["position"])

    async def budget(self, agent_id: str = "A-1", **fields: Any) -> dict[str, str]:
        """Return an agent's granted, spent, reserved and remaining amounts, by a preview of nothing; records nothing."""
        answer = await self.ask(
            "preview", agent_id=agent_id, kind="refund", amount=gbp("0"), reason="balance", **fields
        )
        return {name: answer["budget"][name]["amount"] for name in ("granted", "spent", "reserved", "remaining")}

    async def recorded(self, name: str) -> list[Document]:
        """Return the data of every event of the type `resolution.<name>.v1`, in order."""
        return [stored["data"] for stored in await self.replay() if stored["type"] == f"resolution.{name}.v1"]

    async def wait_for_decider(self) -> None:
        """Wait until the decider has read the log to its end, so that it knows every fact recorded so far.

        Asks it to void a hold that does not exist: it reads on to the end before it refuses, and records nothing.
        """
        answer = await self.ask("hold", request_id="no-such-hold", action_id="no-such-action", operation="void")
        assert answer["outcome"] == "error", answer

    async def set_up_basics(self, policy: Document = BASIC_POLICY) -> None:
        """Publish a policy, and announce an agent A-1 and a manager M-1 of one team."""
        answer = await self.ask("policy", request_id="policy-1", policy=policy, published_by="owner")
        assert answer["outcome"] == "done", answer
        await self.record(event("join-a", "employee.joined", employee_id="A-1", role="agent", team_ids=["t-1"]))
        await self.record(event("join-m", "employee.joined", employee_id="M-1", role="manager", team_ids=["t-1"]))

    async def replay(self) -> list[Document]:
        """Return every event of the log with its position, and with personal fields decrypted."""
        keys = await Keyring.open(self.session.client)
        found: list[Document] = []
        for position in range(1, await self.session.log.last_position() + 1):
            recorded = await self.session.log.at(position)
            assert recorded is not None
            found.append(json.loads(await keys.decrypt_fields(recorded.data)) | {"position": position})
        return found


def needs_operator(operation: str, fields: Mapping[str, Any]) -> bool:
    """Return whether a request is beyond the profile `desk`, which an unregistered source has."""
    if operation == "escalation":
        return fields.get("operation") in ("approve", "deny", "forward")
    return operation in ("budget", "policy") or (operation == "flag" and "employee_id" not in fields)


@asynccontextmanager
async def upstream_of(session: Session, *roles: str, history: bool = False) -> AsyncIterator[Upstream]:
    """Run roles (intake and decisions, unless named) on a session's ledger, and yield an upstream beside them."""
    async with running(session, roles or ("intake", "decisions"), history=history):
        yield Upstream(session, await session.upstream("test"))


async def wait_until_answering(upstream: Upstream) -> None:
    """Wait until intake and decisions answer; a connection that was closed meanwhile is open again."""

    async def answers() -> bool:
        with suppress(nats.errors.Error, TimeoutError):
            for subject in ("resolution.read.test.receipt", "resolution.decide.test.preview"):
                await upstream.client.request(subject, b"{}", timeout=1)
            return True
        return False

    assert await eventually(answers, bool)


async def set_up_organisation(upstream: Upstream, policy: Document = FULL_POLICY) -> None:
    """Publish a policy, announce all of STAFF, and wait until the decider knows them."""
    answer = await upstream.ask("policy", request_id="policy-1", policy=policy, published_by="owner")
    assert answer["outcome"] == "done", answer
    for name, (role, teams, manager) in STAFF.items():
        above = {"manager_id": manager} if manager else {}
        await upstream.publish(
            event(f"join-{name}", "employee.joined", employee_id=name, role=role, team_ids=teams, **above)
        )
    for name in STAFF:
        await upstream.receipt(f"join-{name}")
    await upstream.wait_for_decider()


@asynccontextmanager
async def two_at_work(session: Session, *, history: bool = False) -> AsyncIterator[Upstream]:
    """Run an intake and two deciders that both answer, as one does that was suspended and has lost its lease since."""

    async def turn(lease: Lease) -> None:
        lease._become(ours=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lease, "_turn", turn)
        async with (
            upstream_of(session, history=history) as upstream,
            upstream_of(session, "decisions", history=history),
        ):
            yield upstream
