"""Decisions: the same budget arithmetic in our decider over NATS, and in applications of the library."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

import nats.errors
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, OriginatorVersionError, event
from eventsourcing.persistence import IntegrityError

from benchmarks.bare_responder import ANSWER, OPERATION
from benchmarks.contest import Contest, contest, p99, rate
from benchmarks.ledgers import POLICY
from benchmarks.load import send_all, validated
from benchmarks.rivals import ES_POSTGRES, ES_SQLITE, make_stream
from benchmarks.uma import uma_conditional_appends
from domain.serialization import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.contest import Run
    from benchmarks.context import BenchmarkContext
    from benchmarks.load import LoadResult
    from ledger.nats.client import LedgerClient

LEDGER = "ledger, request and reply"
PUBLISH = "a raw durable publish, the same load"
BARE = "request, publish and reply, without a decision"
NEEDED = "target"
AGENTS = 100
DRIVERS = 64
WIDTHS = {1: 1_000, 16: 4_000, 64: 10_000, 256: 20_000}
RIVALS_A_SECOND = 1_500
"""Rivals get fewer requests, so that their runs take as long."""
RIVALS_WIDTH = 64
"""With more threads the rivals' connection pools fail."""


class Purse(Aggregate):
    """A budget as an aggregate of the library, with the arithmetic only."""

    @staticmethod
    def create_id(holder: str) -> UUID:
        """Return the id of a holder's purse."""
        return uuid5(NAMESPACE_URL, holder)

    @event("Opened")
    def __init__(self, holder: str, granted_minor: int) -> None:
        self.holder = holder
        self.left_minor = granted_minor
        self.by_interaction: dict[str, int] = {}

    def may(self, amount_minor: int, interaction_id: str) -> bool:
        """Return whether the limits allow it: for an action, for an interaction, and the remaining amount."""
        spent = self.by_interaction.get(interaction_id, 0)
        return amount_minor <= 5000 and spent + amount_minor <= 6000 and amount_minor <= self.left_minor

    @event("Taken")
    def take(
        self, request_id: str, amount_minor: int, customer_id: str, interaction_id: str, kind: str, reason: str
    ) -> None:
        """Take an action."""
        self.left_minor -= amount_minor
        self.by_interaction[interaction_id] = self.by_interaction.get(interaction_id, 0) + amount_minor


class Purses(Application[UUID]):
    """Decides, and retries after a conflict; purses are cached, which is the library's fastest configuration."""

    env = {"AGGREGATE_CACHE_MAXSIZE": "1000", "DEEPCOPY_FROM_AGGREGATE_CACHE": "n"}  # noqa: RUF012 - as the library has it

    def decide(self, number: int) -> str:
        """Take 5.00; return whether the limits allow it."""
        while True:
            holder = f"A-{number % AGENTS}"
            try:
                purse: Purse = self.repository.get(Purse.create_id(holder))
            except AggregateNotFoundError:
                purse = Purse(holder, 10**10)
            except OriginatorVersionError:  # another thread changed the cached purse
                continue
            interaction = f"I-{number}"
            if not purse.may(500, interaction):
                return "escalate"
            purse.take(f"r-{number}", 500, f"C-{number}", interaction, "refund", "late")
            try:
                self.save(purse)
            except IntegrityError:
                continue
            return "taken"


async def decisions(context: BenchmarkContext) -> list[Contest]:
    """Measure decisions with 1 to 256 in flight, sequentially, and 64 drivers on one pool."""
    upstream = await context.session.upstream("bench")
    await make_stream(context.session.client, "PUBLISH")
    load = _Load(context, upstream)
    apps = {
        name: Purses(context.envs[name] | {"NATS_STREAM": "purses"})
        for name in (ES_SQLITE, ES_POSTGRES)
        if name in context.envs
    }
    try:
        async with context.role("decisions") as pid, context.role("intake"), _bare_responder(context):
            await _begin(context.session.client)
            await _join_pool(upstream)
            await load.ask(AGENTS * 10, 64)  # opens and caches all budgets
            cpu = context.cpu | {"decider": [pid]}
            results = [
                await contest(
                    f"decisions, {width} in flight",
                    "per s",
                    {LEDGER: load.decision_rate(number, width), PUBLISH: load.publish_rate(number, width)}
                    | ({NEEDED: _needed(6_000)} if width == max(WIDTHS) else {})
                    | {
                        name: _deciding(app, min(context.scaled(number), RIVALS_A_SECOND), width)
                        for name, app in apps.items()
                        if width <= RIVALS_WIDTH
                    }
                    | uma_conditional_appends(context.uma, context.scaled(number), width),
                    needs=dict.fromkeys(apps, 1.5) if width == 64 else {NEEDED: 1} if width == 256 else {},
                    cpu_of=cpu,
                )
                for width, number in WIDTHS.items()
            ]
            results += await _latencies(context, load, apps, cpu)
            results.append(
                await contest(
                    "decisions, 64 writers on one pool, a draw each",
                    "per s",
                    {LEDGER: load.decision_rate(WIDTHS[16], 64, role="driver"), NEEDED: _needed(500)},
                    needs={NEEDED: 1},
                    cpu_of=cpu,
                )
            )
            return results
    finally:
        for app in apps.values():
            app.close()


async def _latencies(context: BenchmarkContext, load: _Load, apps: dict[str, Purses], cpu: Any) -> list[Contest]:
    number = WIDTHS[1]
    rivals = {name: _deciding_alone(app, context.scaled(number)) for name, app in apps.items()}
    return [
        await contest(
            "decision alone, median",
            "ms",
            {
                LEDGER: load.decision_rate(number, 1, share=0.5),
                PUBLISH: load.publish_rate(number, 1, share=0.5),
                BARE: load.bare_rate(number, share=0.5),
            },
            needs={PUBLISH: 1 / 2.5},
            cpu_of=cpu,
        ),
        await contest(
            "decision alone, 99th percentile",
            "ms",
            {LEDGER: load.decision_rate(number, 1, share=0.99), PUBLISH: load.publish_rate(number, 1, share=0.99)}
            | rivals,
            needs={PUBLISH: 1 / 3},
            cpu_of=cpu,
        ),
        await contest(
            "decision, 256 in flight, 99th percentile",
            "ms",
            {LEDGER: load.decision_rate(WIDTHS[256], 256, share=0.99), NEEDED: _needed(100)},
            needs={NEEDED: 1},
            cpu_of=cpu,
        ),
    ]


class _Load:
    """Requests with new ids, sent by `benchmarks.load`."""

    def __init__(self, context: BenchmarkContext, upstream: LedgerClient) -> None:
        self._context = context
        self._upstream = upstream
        self._asked = iter(range(10**9))

    def decision_rate(self, number: int, width: int, *, share: float | None = None, role: str = "agent") -> Run:
        """Measure decisions: their rate, or the latency of this share of them in milliseconds."""

        async def run(_round: int) -> float:
            return _figure(await self.ask(self._context.scaled(number), width, role), share)

        return run

    def publish_rate(self, number: int, width: int, *, share: float | None = None) -> Run:
        """Measure durable publishes of 500 bytes by the same generator."""
        messages = [(f"bench.PUBLISH.{one % AGENTS}", b"x" * 500) for one in range(self._context.scaled(number))]

        async def run(_round: int) -> float:
            flown = await send_all(self._context.session.client, messages, width)
            return _figure(validated(flown, lambda answer: b'"error"' not in answer), share)

        return run

    def bare_rate(self, number: int, *, share: float) -> Run:
        """Measure requests, one at a time, to a responder that decides nothing."""
        requests = [(f"resolution.decide.bench.{OPERATION}", b"x" * 250)] * self._context.scaled(number)

        async def run(_round: int) -> float:
            return _figure(validated(await send_all(self._upstream, requests, 1), ANSWER.__eq__), share)

        return run

    async def ask(self, number: int, width: int, role: str = "agent", *, warming: bool = False) -> LoadResult:
        """Request so many actions by a hundred agents or a pool's drivers; while warming up, any answer is accepted."""
        prefix, many = ("A", AGENTS) if role == "agent" else ("D", DRIVERS)
        requests = []
        for one in (next(self._asked) for _ in range(number)):
            request = {
                "request_id": f"r-{one}",
                "agent_id": f"{prefix}-{one % many}",
                "kind": "refund",
                "reason": "late",
                "amount": {"amount": "5.00", "currency": "GBP"},
                "customer_id": f"C-{one}",
                "interaction_id": f"I-{one}",
            }
            requests.append(("resolution.decide.bench.action", json.dumps(request).encode()))
        return validated(
            await send_all(self._upstream, requests, width), lambda answer: warming or b'"taken"' in answer
        )


@contextlib.asynccontextmanager
async def _bare_responder(context: BenchmarkContext) -> AsyncIterator[None]:
    """Run a responder that decides nothing, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.bare_responder",
        str(context.session.data_dir),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        await asyncio.wait_for(process.stdout.readline(), 30)
        yield
    finally:
        process.stdin.close()
        await process.wait()


def _figure(flown: LoadResult, share: float | None) -> float:
    return flown.rate if share is None else flown.slowest_ms(share)


def _needed(figure: float) -> Run:
    async def run(_round: int) -> float:
        return figure

    return run


async def _join_pool(upstream: LedgerClient) -> None:
    """Add drivers without budgets of their own, whose actions draw on their depot's pool."""
    for number in range(DRIVERS):
        fact = {
            "specversion": "1.0",
            "id": f"join-{number}",
            "source": "bench",
            "type": "resolution.employee.joined.v1",
            "time": "2026-01-01T00:00:00Z",
            "data": {"employee_id": f"D-{number}", "role": "driver", "team_ids": ["depot"]},
        }
        await upstream.request("resolution.inbox.bench", json.dumps(fact).encode(), timeout=10)
    for _ in range(500):
        with contextlib.suppress(nats.errors.NoRespondersError):  # intake may still be starting
            reply = await upstream.request("resolution.read.bench.receipt", b'{"id": "join-63"}', timeout=5)
            if b'"recorded"' in reply.data:
                return
        await asyncio.sleep(0.02)
    raise RuntimeError("the drivers were not taken in")


async def _begin(operator: LedgerClient) -> None:
    """Publish a policy as soon as the deciders answer; a repeated request gets the same answer."""
    policy = {"request_id": "policy", "policy": POLICY, "published_by": "bench"}
    for _ in range(200):
        try:
            reply = await operator.request("resolution.operate.bench.policy", encode(policy), timeout=5)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            await asyncio.sleep(0.1)
        else:
            assert json.loads(reply.data)["outcome"] == "done", reply.data
            return
    raise RuntimeError("no decider answers")


def _deciding(app: Purses, number: int, width: int) -> Run:
    async def run(turn: int) -> float:
        with ThreadPoolExecutor(width) as pool:
            numbers = range(turn * number, (turn + 1) * number)
            begun = time.perf_counter()
            assert set(await asyncio.to_thread(lambda: list(pool.map(app.decide, numbers)))) == {"taken"}
            return rate(number, begun)

    return run


def _deciding_alone(app: Purses, number: int) -> Run:
    async def run(_round: int) -> float:
        took = []
        for one in range(number):
            begun = time.perf_counter()
            app.decide(one)
            took.append((time.perf_counter() - begun) * 1000)
        return p99(took)

    return run
