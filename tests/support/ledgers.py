"""What tests share: an upstream, a running `up`, a policy, events."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.runtime.roles import running
from app.runtime.session import Session
from config import topology
from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext, opening
from domain.commands import Preview
from domain.decisions.authority import Agent, DecisionContext
from domain.policy.model import Rules
from domain.policy.parsing import parse_policy
from ledger.encryption.keyring import Keyring
from ledger.store.streams import js_api, stream_names
from ledger.store.subject_tokens import token_of_source

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"

POLICY: dict[str, Any] = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2020-01-01T00:00:00Z",
    "roles": {
        "agent": {
            "budget": "200.00",
            "carry_over": "50.00",
            "limits": {"refund": "50.00", "keep_item": "20.00", "fix": "unlimited"},
            "per_interaction": "60.00",
            "requires": {"keep_item": ["goodwill-basics"]},
        },
        "manager": {"budget": "2000.00", "limits": {"refund": "500.00", "credit": "250.00"}},
    },
}


def gbp(amount: str) -> dict[str, str]:
    """Pounds on the wire."""
    return {"amount": amount, "currency": "GBP"}


def event(
    identifier: str, name: str, source: str = "crm", time: str = "2026-01-05T10:00:00Z", **data: Any
) -> dict[str, Any]:
    """A fact as an upstream writes it."""
    return {
        "specversion": "1.0",
        "id": identifier,
        "source": source,
        "type": f"resolution.{name}.v1",
        "time": time,
        "data": data,
    }


class Upstream:
    """What an upstream can do, with nothing but its connection."""

    def __init__(self, session: Session, client: Any, source: str = "crm") -> None:
        self.session = session
        self.client = client
        self.source = source
        self.patience: float = 20  # seconds
        self._requests = 0

    async def publish(self, fact: dict[str, Any] | bytes, subject: str | None = None, **options: Any) -> int:
        """Publish one event; the inbox's sequence, once it is durable."""
        data = fact if isinstance(fact, bytes) else json.dumps(fact).encode()
        source = fact["source"] if isinstance(fact, dict) else self.source
        subject = subject or f"resolution.inbox.{token_of_source(source)}"
        reply = json.loads((await self.client.request(subject, data, timeout=10, **options)).data)
        if "error" in reply:
            raise RuntimeError(reply["error"]["description"])
        return int(reply["seq"])

    async def ask(self, operation: str, /, **fields: Any) -> dict[str, Any]:
        """Ask for a decision."""
        subject = f"resolution.decide.{self.source}.{operation}"
        reply = await self.client.request(subject, json.dumps(fields).encode(), timeout=self.patience)
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def action(self, request_id: str | None = None, amount: str = "5.00", **fields: Any) -> dict[str, Any]:
        """Ask for a refund by agent A-1."""
        self._requests += 1
        request = {
            "request_id": request_id or f"r-{self._requests}",
            "agent_id": "A-1",
            "kind": "refund",
            "amount": gbp(amount),
            "reason": "late",
        }
        return await self.ask("action", **(request | fields))

    async def receipt(self, identifier: str, source: str | None = None) -> dict[str, Any]:
        """Wait until an event is recorded or rejected."""
        subject = f"resolution.read.{token_of_source(source or self.source)}.receipt"
        for _ in range(400):
            reply = await self.client.request(subject, json.dumps({"id": identifier}).encode(), timeout=10)
            answer: dict[str, Any] = json.loads(reply.data)
            if answer.get("status") != "pending":
                return answer
            await asyncio.sleep(0.02)
        raise AssertionError(f"{identifier} is still pending")

    async def record(self, fact: dict[str, Any]) -> int:
        """Publish a fact and wait for its position."""
        await self.publish(fact)
        answer = await self.receipt(fact["id"], fact["source"])
        assert answer["status"] == "recorded", answer
        return int(answer["position"])

    async def begin(self, policy: dict[str, Any] = POLICY) -> None:
        """A policy, an agent A-1 and a manager M-1."""
        answer = await self.ask("policy", request_id="policy-1", policy=policy, published_by="owner")
        assert answer["outcome"] == "done", answer
        await self.record(event("join-a", "employee.joined", employee_id="A-1", role="agent", team_ids=["t-1"]))
        await self.record(event("join-m", "employee.joined", employee_id="M-1", role="manager", team_ids=["t-1"]))

    async def replay(self) -> list[dict[str, Any]]:
        """Every event in the log, with its position; what is personal opened."""
        keys = await Keyring.open(self.session.client)
        found: list[dict[str, Any]] = []
        for position in range(1, await self.session.log.last_position() + 1):
            recorded = await self.session.log.at(position)
            assert recorded is not None
            found.append(json.loads(await keys.reveal(recorded.data)) | {"position": position})
        return found


async def drained(session: Session) -> None:
    """Wait until every message of every inbox is acknowledged; after a crash that takes 30 seconds."""
    for _ in range(1200):
        waiting = 0
        for name in topology.inboxes(await stream_names(session.client)):
            info = await js_api(session.client, f"CONSUMER.INFO.{name}.{topology.INTAKE_CONSUMER}")
            waiting += int(info.get("num_pending", 0)) + int(info.get("num_ack_pending", 0))
        if not waiting:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{waiting} messages are still in inboxes")


async def in_inboxes(session: Session) -> int:
    """How many messages all inboxes hold, taken or not."""
    names = topology.inboxes(await stream_names(session.client))
    infos = [await js_api(session.client, f"STREAM.INFO.{name}") for name in names]
    return sum(int(info["state"]["messages"]) for info in infos)


@asynccontextmanager
async def upstream_of(session: Session, *roles: str, history: bool = False) -> AsyncIterator[Upstream]:
    """These roles running, and an upstream beside them."""
    async with running(session, roles or ("intake", "decisions"), history=history):
        yield Upstream(session, await session.upstream("test"))


def clean_environment() -> dict[str, str]:
    """The environment without settings of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RESOLUTION_LEDGER_")}


class Up:
    """A running `up` in a process of its own, and where its clients find it."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "up", "--data-dir", str(data_dir), *options],
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ready(self) -> dict[str, Any]:
        """Wait until it is up; the document of connection.json."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert "is up" in line, line + self.process.stdout.read()
        document: dict[str, Any] = json.loads((self.data_dir / "connection.json").read_text())
        return document

    def stop(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.terminate()
        self.process.communicate(timeout=30)
        return self.process.returncode


RULES = Rules(1, parse_policy(POLICY))
AGENT = Agent(agent_id="A-1", role="agent")
NOW = datetime(2026, 1, 10, tzinfo=UTC)


def cause(number: int) -> RequestContext:
    """A request of the CRM."""
    return RequestContext(source="crm", request_id=f"r-{number}", request_sha256="00" * 16, seen_position=0)


def opened(before: Budget | None = None, period: str = "2026-01") -> Budget:
    """The budget of A-1, just opened."""
    record, _ = opening(RULES, "agent:A-1", period, before, cause(0), "agent", "GBP")
    return Budget.open(record, NOW)


def asking_of(request: Preview, agent: Agent = AGENT, rules: Rules = RULES, **known: Any) -> DecisionContext:
    """A request of the CRM with what is known about it: a fresh budget and nothing else, unless named."""
    given: dict[str, Any] = {"source": "crm", "now": NOW, "budget": known.pop("budget", None) or opened()}
    return DecisionContext(request=request, agent=agent, rules=rules, **(given | known))


AUTHORITY: dict[str, Any] = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2020-01-01T00:00:00Z",
    "roles": {
        "agent": {
            "budget": "200.00",
            "carry_over": "50.00",
            "limits": {"refund": "50.00", "credit": "25.00", "keep_item": "20.00", "fix": "unlimited"},
            "per_interaction": "60.00",
            "per_customer": {"amount": "100.00", "days": 90, "hard_above": "80.00"},
            "requires": {"keep_item": ["goodwill-basics"]},
        },
        "manager": {
            "budget": "2000.00",
            "limits": {"refund": "500.00", "credit": "250.00", "upgrade": "100.00"},
            "approves": {"refund": "500.00", "credit": "250.00"},
        },
        "director": {"budget": "5000.00", "limits": {"refund": "unlimited"}, "approves": {"refund": "unlimited"}},
    },
    "teams": {"doorstep": {"pool": "1000.00", "draw_at_most": "100.00", "limits": {"agent": {"refund": "60.00"}}}},
    "escalation": {"payer": "team", "after_hours": 48, "then": "next_level"},
}
"""Every rule there is. Agents of `doorstep` have a pool, those of other teams have none."""

STAFF = {
    "A-1": ("agent", ["phone"], "M-1"),
    "A-2": ("agent", ["phone"], "M-1"),
    "D-1": ("agent", ["doorstep"], "M-1"),
    "D-2": ("agent", ["doorstep"], "M-1"),
    "M-1": ("manager", ["phone"], "X-1"),
    "M-2": ("manager", ["phone"], "X-1"),
    "X-1": ("director", [], None),
}
"""Who works here: role, teams, manager."""


async def staffed(upstream: Upstream, policy: dict[str, Any] = AUTHORITY) -> Upstream:
    """A policy, and everybody announced; the deciders know them."""
    answer = await upstream.ask("policy", request_id="policy-1", policy=policy, published_by="owner")
    assert answer["outcome"] == "done", answer
    for name, (role, teams, manager) in STAFF.items():
        above = {"manager_id": manager} if manager else {}
        await upstream.publish(
            event(f"join-{name}", "employee.joined", employee_id=name, role=role, team_ids=teams, **above)
        )
    for name in STAFF:
        await upstream.receipt(f"join-{name}")
    await upstream.action(None, agent_id="nobody-here")  # an unknown agent's request waits for the log's end
    return upstream
