"""The parts of the comparison of two versions; each drives a ledger from outside, as its users do.

Facts and requests go over plain nats-py, reads over HTTP, the rest through the command line, so that every version is
driven in the same way.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import nats

from benchmarks.cpu import Measured, Meter, until_at_rest
from benchmarks.ledgers import POLICY, fact
from benchmarks.processes import CommandError, Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from nats.aio.client import Client

AGENTS = 100
WIDE = 256
"""Requests in flight in parts with many at once."""
REPORTS = ("balances", "gap", "loyalty")
READS = ("balances?limit=20", "actions?limit=20", "escalations", "flags")
_FACTS, _DECISIONS = "resolution.inbox.bench", "resolution.decide.bench.action"
_PATIENCE_SECONDS = 60


@dataclass
class Side:
    """One of the two versions with its ledger; facts and requests have new ids."""

    ledger: Ledger
    scale: float
    password: str = ""
    _facts: Iterator[int] = field(default_factory=count)
    _requests: Iterator[int] = field(default_factory=count)

    @property
    def data_dir(self) -> Path:
        """The ledger's data directory."""
        return self.ledger.data_dir

    def facts(self, number: int, least: int = 1) -> list[bytes]:
        """Return so many new facts, fewer in a quick run."""
        return [fact(one) for one in islice(self._facts, max(least, int(number * self.scale)))]

    def requests(self, number: int, least: int = 1) -> list[bytes]:
        """Return so many new requests, fewer in a quick run; all agents take turns."""
        return [_request(one) for one in islice(self._requests, max(least, int(number * self.scale)))]

    def begin(self) -> None:
        """Fill the ledger: a policy, facts, a budget for each agent, decisions; all of it read, sealed and archived."""
        policy = self.data_dir.parent / "policy.json"
        policy.write_text(json.dumps(POLICY))
        with self.ledger.up():
            self._learn_password()
            self.ledger.run("decide", "policy", str(policy), "--published-by", "owner")
            asyncio.run(self._fill())
            until_at_rest(self.data_dir)

    async def record(self, facts: Sequence[bytes]) -> None:
        """Publish facts to the running ledger; return when all of them are recorded."""
        self._learn_password()
        async with self.client() as client:
            await _publish(client, facts)
            await _recorded(client, facts)

    def _learn_password(self) -> None:
        where = json.loads((self.data_dir / "connection.json").read_text())
        self.password = urlsplit(where["nats_url"]).password or ""

    async def _fill(self) -> None:
        async with self.client() as client:
            facts = self.facts(20_000)
            await _publish(client, facts)
            await _recorded(client, facts)
            await _decide(client, self.requests(2_000, AGENTS), WIDE)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Connect as an upstream does."""
        client = await nats.connect(self.ledger.server_url(self.password), max_reconnect_attempts=3)
        try:
            yield client
        finally:
            await client.close()


def _request(number: int) -> bytes:
    request = {
        "request_id": f"r-{number}",
        "agent_id": f"A-{number % AGENTS}",
        "kind": "refund",
        "reason": "late",
        "amount": {"amount": "5.00", "currency": "GBP"},
        "customer_id": f"C-{number}",
        "interaction_id": f"I-{number}",
    }
    return json.dumps(request).encode()


# ---------------------------------------------------------------------- load


async def _send(client: Client, subject: str, bodies: Sequence[bytes], width: int, expected: bytes) -> None:
    """Send requests, so many in flight; each answer must hold the expected bytes."""
    todo = iter(bodies)

    async def worker() -> None:
        for body in todo:
            answer = await client.request(subject, body, timeout=_PATIENCE_SECONDS)
            if expected not in answer.data or b'"error"' in answer.data:
                raise CommandError(f"{subject} was answered by {answer.data.decode(errors='replace')}")

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(width):
                tasks.create_task(worker())
    except* CommandError as failed:
        raise failed.exceptions[0] from None


async def _publish(client: Client, facts: Sequence[bytes]) -> None:
    await _send(client, _FACTS, facts, WIDE, b'"seq"')


async def _decide(client: Client, requests: Sequence[bytes], width: int) -> None:
    await _send(client, _DECISIONS, requests, width, b'"taken"')


async def _recorded(client: Client, facts: Sequence[bytes]) -> None:
    """Wait until all of these facts are recorded."""
    ids = [json.loads(one)["id"] for one in facts]
    for at in range(0, len(ids), 1000):
        await _receipts(client, ids[at : at + 1000])


async def _receipts(client: Client, ids: list[str]) -> None:
    deadline, body = time.monotonic() + _PATIENCE_SECONDS, json.dumps({"ids": ids}).encode()
    while True:
        answer = await client.request("resolution.read.bench.receipt", body, timeout=_PATIENCE_SECONDS)
        states = {one["status"] for one in json.loads(answer.data)["items"]}
        if states == {"recorded"}:
            return
        if "rejected" in states or time.monotonic() > deadline:
            raise CommandError(f"facts that were acknowledged are not recorded, but {', '.join(states)}")
        await asyncio.sleep(0.02)


# ---------------------------------------------------------------------- parts


def start(side: Side) -> Measured:
    """Measure `up`: seconds until a decision is answered, CPU until all its processes have started."""

    async def decide() -> None:
        async with side.client() as client:
            await _decide(client, side.requests(1), 1)

    meter = Meter(side.data_dir)
    with side.ledger.up():
        asyncio.run(decide())
        seconds = meter.seconds
        until_at_rest(side.data_dir)
        return meter.stop(1, seconds=seconds)


def facts(side: Side) -> Measured:
    """Measure the intake of facts as they arrive, until the last is recorded."""

    async def run() -> Measured:
        async with side.client() as client:
            await _warm_intake(side, client)
            sent = side.facts(6_000)
            meter = Meter(side.data_dir)
            await _publish(client, sent)
            await _recorded(client, sent[-1:])
            measured = meter.stop(len(sent))
            await _recorded(client, sent)
            return measured

    with side.ledger.role("intake"):
        return asyncio.run(run())


async def _warm_intake(side: Side, client: Client) -> None:
    warm = side.facts(500)
    await _publish(client, warm)
    await _recorded(client, warm)


def inbox(side: Side) -> Measured:
    """Measure the intake of an inbox that was filled while its process was suspended."""

    async def run(intake: int) -> Measured:
        async with side.client() as client:
            await _warm_intake(side, client)
            sent = side.facts(10_000)
            with _stopped(intake):
                await _publish(client, sent)
                meter = Meter(side.data_dir)
            await _recorded(client, sent[-1:])
            measured = meter.stop(len(sent))
            await _recorded(client, sent)
            return measured

    with side.ledger.role("intake") as process:
        return asyncio.run(run(process.pid))


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Suspend a process."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def decisions(side: Side, number: int, width: int) -> Measured:
    """Measure decisions, so many in flight, by a decider with cached budgets."""

    async def run() -> Measured:
        async with side.client() as client:
            await _decide(client, side.requests(500, AGENTS), width)
            requests = side.requests(number)
            meter = Meter(side.data_dir)
            await _decide(client, requests, width)
            return meter.stop(len(requests))

    with side.ledger.role("decisions"):
        return asyncio.run(run())


def everything(side: Side) -> Measured:
    """Measure all roles together, until views, guard, seal and archive have all events; the rate is of the load."""

    async def run() -> Measured:
        async with side.client() as client:
            await _warm_intake(side, client)
            await _decide(client, side.requests(500, AGENTS), WIDE)
            sent, requests = side.facts(5_000), side.requests(1_000)
            await asyncio.to_thread(until_at_rest, side.data_dir)
            meter = Meter(side.data_dir)
            await asyncio.gather(_publish(client, sent), _decide(client, requests, WIDE))
            await _recorded(client, sent[-1:])
            seconds = meter.seconds
            await asyncio.to_thread(until_at_rest, side.data_dir)
            measured = meter.stop(len(sent) + len(requests), seconds=seconds)
            await _recorded(client, sent)
            return measured

    with side.ledger.up():
        return asyncio.run(run())


def reads(side: Side) -> Measured:
    """Measure reads over HTTP, one after the other on one connection."""
    with side.ledger.up():
        where = json.loads((side.data_dir / "connection.json").read_text())
        address = urlsplit(where["http_url"])
        connection = http.client.HTTPConnection(
            address.hostname or "127.0.0.1", address.port, timeout=_PATIENCE_SECONDS
        )
        headers = {"Authorization": f"Bearer {where['http_token']}"}

        def read(times: int) -> int:
            for path in READS * times:
                connection.request("GET", f"/api/v1/{path}", headers=headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != HTTPStatus.OK:
                    raise CommandError(f"/api/v1/{path} was answered by {answer.status}")
            return times * len(READS)

        until_at_rest(side.data_dir)
        read(3)
        meter = Meter(side.data_dir)
        measured = meter.stop(read(max(3, int(100 * side.scale))))
        connection.close()
        return measured


def command(*words: str, each: bool = False) -> Callable[[Side], Measured]:
    """Return a measurement of a command to its end, with its start: by event in the ledger, or ``each`` as one."""

    def measure(side: Side) -> Measured:
        with side.ledger.role("archive"):  # keeps the server running
            until_at_rest(side.data_dir)
            last = int(side.ledger.document("audit", "verify")["last_position"])
            meter = Meter(side.data_dir)
            seconds = side.ledger.timed(*words)
            measured = meter.stop(1 if each else last)
        return measured._replace(cpu_seconds={**measured.cpu_seconds, " ".join(words): seconds})

    return measure


class Part(NamedTuple):
    """A title, the name of one operation, and the run that measures it."""

    title: str
    operation: str
    run: Callable[[Side], Measured]


PARTS = {
    "start": Part("start of `up`, until a decision is answered", "start", start),
    "facts": Part(f"intake, {WIDE} facts in flight", "fact", facts),
    "inbox": Part("intake, from a full inbox", "fact", inbox),
    "decision": Part("decisions, one at a time", "decision", partial(decisions, number=1_000, width=1)),
    "decisions 4": Part("decisions, 4 in flight", "decision", partial(decisions, number=2_000, width=4)),
    "decisions 16": Part("decisions, 16 in flight", "decision", partial(decisions, number=4_000, width=16)),
    "decisions 64": Part("decisions, 64 in flight", "decision", partial(decisions, number=4_000, width=64)),
    "decisions": Part(f"decisions, {WIDE} in flight", "decision", partial(decisions, number=8_000, width=WIDE)),
    "everything": Part("`up`, all roles: 5 facts to a decision", "event", everything),
    "reads": Part("reads over HTTP", "read", reads),
    "rebuild": Part("all views built anew", "event", command("admin", "projections", "rebuild")),
    "replay": Part("audit replay", "event", command("audit", "replay")),
    "verify": Part("audit verify", "event", command("audit", "verify")),
    **{f"report {name}": Part(f"report {name}", "report", command("report", name, each=True)) for name in REPORTS},
}
"""Commands are measured with their start, which dominates in a small ledger."""
