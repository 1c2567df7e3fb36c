"""Decisions: the same budget arithmetic by our decider over NATS, and by applications of the library in here."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

import nats.errors
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError

from benchmarks.contest import Contest, contest, p99, rate
from benchmarks.ledgers import POLICY
from benchmarks.rivals import ES_POSTGRES, ES_SQLITE, in_flight, make_stream
from domain.wire import encode

if TYPE_CHECKING:
    from benchmarks.contest import Run
    from benchmarks.setting import Setting

LEDGER = "ledger, request and reply"
PUBLISH = "raw nats-py, a durable publish"
AGENTS = 100
WIDTHS = {1: 1_000, 16: 4_000, 64: 10_000, 256: 20_000}
RIVALS_A_SECOND = 1_500
"""Rivals get fewer requests, so that a run of theirs takes as long."""


class Purse(Aggregate):
    """A budget in the library's own words, no more than the arithmetic."""

    @staticmethod
    def create_id(holder: str) -> UUID:
        """One for each holder."""
        return uuid5(NAMESPACE_URL, holder)

    @event("Opened")
    def __init__(self, holder: str, granted_minor: int) -> None:
        self.holder = holder
        self.left_minor = granted_minor
        self.by_interaction: dict[str, int] = {}

    def may(self, amount_minor: int, interaction_id: str) -> bool:
        """The limits: an action, an interaction, what is left."""
        spent = self.by_interaction.get(interaction_id, 0)
        return amount_minor <= 5000 and spent + amount_minor <= 6000 and amount_minor <= self.left_minor

    @event("Taken")
    def take(
        self, request_id: str, amount_minor: int, customer_id: str, interaction_id: str, kind: str, reason: str
    ) -> None:
        """One action."""
        self.left_minor -= amount_minor
        self.by_interaction[interaction_id] = self.by_interaction.get(interaction_id, 0) + amount_minor


class Purses(Application[UUID]):
    """Decides, and tries again where another was quicker; purses are cached, as fast as the library can."""

    env = {"AGGREGATE_CACHE_MAXSIZE": "1000", "DEEPCOPY_FROM_AGGREGATE_CACHE": "n"}  # noqa: RUF012 - as the library has it

    def decide(self, number: int) -> str:
        """Take 5.00, or say that it is too much."""
        while True:
            holder = f"A-{number % AGENTS}"
            try:
                purse: Purse = self.repository.get(Purse.create_id(holder))
            except AggregateNotFoundError:
                purse = Purse(holder, 10**10)
            interaction = f"I-{number}"
            if not purse.may(500, interaction):
                return "escalate"
            purse.take(f"r-{number}", 500, f"C-{number}", interaction, "refund", "late")
            try:
                self.save(purse)
            except IntegrityError:
                continue
            return "taken"


async def decisions(setting: Setting) -> list[Contest]:
    """With 1, 16, 64 and 256 in flight, and the slowest of a hundred when asked alone."""
    upstream = await setting.session.upstream("bench")
    await make_stream(setting.session.client, "PUBLISH")
    asked = iter(range(10**9))

    async def ask(_number: int) -> None:
        number = next(asked)
        request = {
            "request_id": f"r-{number}", "agent_id": f"A-{number % AGENTS}", "kind": "refund", "reason": "late",
            "amount": {"amount": "5.00", "currency": "GBP"}, "customer_id": f"C-{number}",
            "interaction_id": f"I-{number}",
        }  # fmt: skip
        reply = await upstream.request("resolution.decide.bench.action", json.dumps(request).encode(), timeout=30)
        answer = json.loads(reply.data)
        assert answer["outcome"] == "taken", answer

    async def publish(number: int) -> None:
        reply = await setting.session.client.request(f"bench.PUBLISH.{number % AGENTS}", b"x" * 500, timeout=30)
        assert b"error" not in reply.data, reply.data

    apps = {
        name: Purses(setting.envs[name] | {"NATS_STREAM": "purses"})
        for name in (ES_SQLITE, ES_POSTGRES)
        if name in setting.envs
    }
    try:
        async with setting.role("decisions") as pid:
            await _begin(upstream)
            await in_flight(ask, range(AGENTS * 10), 64)  # warm: budgets are open
            cpu = setting.cpu | {"decider": [pid]}
            results = [
                await contest(
                    f"decisions, {width} in flight", "per s",
                    {
                        LEDGER: _flying(ask, setting.scaled(number), width),
                        PUBLISH: _flying(publish, setting.scaled(number), width),
                    } | {
                        name: _deciding(app, min(setting.scaled(number), RIVALS_A_SECOND), width)
                        for name, app in apps.items()
                    },
                    needs=dict.fromkeys(apps, 1.5) if width == 64 else {}, cpu_of=cpu,
                )
                for width, number in WIDTHS.items()
            ]  # fmt: skip
            number = setting.scaled(1_000)
            results.append(await contest(
                "decision alone, 99th percentile", "ms",
                {LEDGER: _alone(ask, number), PUBLISH: _alone(publish, number)}
                | {name: _deciding_alone(app, number) for name, app in apps.items()}, cpu_of=cpu,
            ))  # fmt: skip
            return results
    finally:
        for app in apps.values():
            app.close()


async def _begin(upstream: Any) -> None:
    """Give the deciders a policy, as soon as they are there; asked again, it is answered again."""
    policy = {"request_id": "policy", "policy": POLICY, "published_by": "bench"}
    for _ in range(200):
        try:
            reply = await upstream.request("resolution.decide.bench.policy", encode(policy), timeout=5)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            await asyncio.sleep(0.1)
        else:
            assert json.loads(reply.data)["outcome"] == "done", reply.data
            return
    message = "nobody decides"
    raise RuntimeError(message)


def _flying(work: Any, number: int, width: int) -> Run:
    async def run(_round: int) -> float:
        return await in_flight(work, range(number), width)

    return run


def _deciding(app: Purses, number: int, width: int) -> Run:
    async def run(turn: int) -> float:
        with ThreadPoolExecutor(width) as pool:
            numbers = range(turn * number, (turn + 1) * number)
            begun = time.perf_counter()
            assert set(await asyncio.to_thread(lambda: list(pool.map(app.decide, numbers)))) == {"taken"}
            return rate(number, begun)

    return run


def _alone(work: Any, number: int) -> Run:
    async def run(_round: int) -> float:
        took = []
        for one in range(number):
            begun = time.perf_counter()
            await work(one)
            took.append((time.perf_counter() - begun) * 1000)
        return p99(took)

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
