"""Decisions: the same budget arithmetic by our decider over NATS, and by applications of the library in here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

import nats.errors
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, OriginatorVersionError, event
from eventsourcing.persistence import IntegrityError

from benchmarks.contest import Contest, contest, p99, rate
from benchmarks.ledgers import POLICY
from benchmarks.load import checked, fly
from benchmarks.rivals import ES_POSTGRES, ES_SQLITE, make_stream
from config import topology
from domain.serialization import encode

if TYPE_CHECKING:
    from benchmarks.contest import Run
    from benchmarks.load import Flown
    from benchmarks.setting import Setting
    from ledger.nats.client import LedgerClient

LEDGER = "ledger, request and reply"
TWO = "ledger, two processes"
PUBLISH = "a raw durable publish, the same load"
NEEDED = "target"
AGENTS = 100
DRIVERS = 64
WIDTHS = {1: 1_000, 16: 4_000, 64: 10_000, 256: 20_000}
RIVALS_A_SECOND = 1_500
"""Rivals get fewer requests, so that a run of theirs takes as long."""
RIVALS_WIDTH = 64
"""With more threads than that, their connection pools give up."""


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
            except OriginatorVersionError:  # another thread was changing the cached one
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


async def decisions(setting: Setting) -> list[Contest]:
    """With 1 to 256 in flight, by one process and by two; alone; 64 writers on one pool."""
    upstream = await setting.session.upstream("bench")
    await make_stream(setting.session.client, "PUBLISH")
    load = _Load(setting, upstream)
    apps = {
        name: Purses(setting.envs[name] | {"NATS_STREAM": "purses"})
        for name in (ES_SQLITE, ES_POSTGRES)
        if name in setting.envs
    }
    try:
        async with setting.role("decisions") as pid, setting.role("intake"):
            await _begin(upstream)
            await _join_pool(upstream)
            await load.ask(AGENTS * 10, 64)  # warm: budgets are open
            cpu = setting.cpu | {"decider": [pid]}
            results = [
                await contest(
                    f"decisions, {width} in flight",
                    "per s",
                    {LEDGER: load.asking(number, width), PUBLISH: load.publishing(number, width)}
                    | ({NEEDED: _needed(6_000)} if width == max(WIDTHS) else {})
                    | {
                        name: _deciding(app, min(setting.scaled(number), RIVALS_A_SECOND), width)
                        for name, app in apps.items()
                        if width <= RIVALS_WIDTH
                    },
                    needs=dict.fromkeys(apps, 1.5) if width == 64 else {NEEDED: 1} if width == 256 else {},
                    cpu_of=cpu,
                )
                for width, number in WIDTHS.items()
            ]
            results += await _latencies(setting, load, apps, cpu)
            results.append(
                await contest(
                    "decisions, 256 in flight, two processes",
                    "per s",
                    {
                        TWO: load.shared(WIDTHS[256], 256, processes=2),
                        LEDGER: load.shared(WIDTHS[256], 256, processes=1),
                    },
                    needs={LEDGER: 0.7},
                    cpu_of=cpu,
                )
            )
            results.append(
                await contest(
                    "decisions, 64 writers on one pool, a draw each",
                    "per s",
                    {LEDGER: load.asking(WIDTHS[16], 64, role="driver"), NEEDED: _needed(500)},
                    needs={NEEDED: 1},
                    cpu_of=cpu,
                )
            )
            return results
    finally:
        for app in apps.values():
            app.close()


async def _latencies(setting: Setting, load: _Load, apps: dict[str, Purses], cpu: Any) -> list[Contest]:
    number = WIDTHS[1]
    rivals = {name: _deciding_alone(app, setting.scaled(number)) for name, app in apps.items()}
    return [
        await contest(
            "decision alone, median",
            "ms",
            {LEDGER: load.asking(number, 1, share=0.5), PUBLISH: load.publishing(number, 1, share=0.5)},
            needs={PUBLISH: 1 / 3},
            cpu_of=cpu,
        ),
        await contest(
            "decision alone, 99th percentile",
            "ms",
            {LEDGER: load.asking(number, 1, share=0.99), PUBLISH: load.publishing(number, 1, share=0.99)} | rivals,
            needs={PUBLISH: 1 / 3},
            cpu_of=cpu,
        ),
        await contest(
            "decision, 256 in flight, 99th percentile",
            "ms",
            {LEDGER: load.asking(WIDTHS[256], 256, share=0.99), NEEDED: _needed(100)},
            needs={NEEDED: 1},
            cpu_of=cpu,
        ),
    ]


class _Load:
    """Requests with names that were never used, flown by `benchmarks.load`."""

    def __init__(self, setting: Setting, upstream: LedgerClient) -> None:
        self._setting = setting
        self._upstream = upstream
        self._asked = iter(range(10**9))

    def asking(self, number: int, width: int, *, share: float | None = None, role: str = "agent") -> Run:
        """Decisions: so many a second, or within how many milliseconds this share of them came."""

        async def run(_round: int) -> float:
            return _figure(await self.ask(self._setting.scaled(number), width, role), share)

        return run

    def shared(self, number: int, width: int, *, processes: int) -> Run:
        """Decisions by one process or by two that share the agents, as they go when nobody comes or leaves."""

        async def run(_round: int) -> float:
            async with contextlib.AsyncExitStack() as stack:
                if processes == 2:
                    await stack.enter_async_context(self._setting.role("decisions"))
                await self._known(processes)
                await self.ask(AGENTS * 10, 64, warming=True)  # they read the books that others wrote in before
                return _figure(await self.ask(self._setting.scaled(number), width), None)

        return run

    async def _known(self, processes: int) -> None:
        """Wait until so many deciders say that they are there."""
        alive = await self._setting.session.client.subscribe(f"{topology.DECIDERS_SUBJECT}.alive")
        names: set[str] = set()
        while len(names) < processes:
            names.add(json.loads((await alive.next_msg(timeout=30)).data)["name"])
        await alive.unsubscribe()

    def publishing(self, number: int, width: int, *, share: float | None = None) -> Run:
        """Durable publishes of 500 bytes, sent by the same generator."""
        messages = [(f"bench.PUBLISH.{one % AGENTS}", b"x" * 500) for one in range(self._setting.scaled(number))]

        async def run(_round: int) -> float:
            flown = await fly(self._setting.session.client, messages, width)
            return _figure(checked(flown, lambda answer: b'"error"' not in answer), share)

        return run

    async def ask(self, number: int, width: int, role: str = "agent", *, warming: bool = False) -> Flown:
        """So many actions, by a hundred agents or by the drivers of one pool; while warming up, any answer will do."""
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
        return checked(await fly(self._upstream, requests, width), lambda answer: warming or b'"taken"' in answer)


def _figure(flown: Flown, share: float | None) -> float:
    return flown.rate if share is None else flown.slowest_ms(share)


def _needed(figure: float) -> Run:
    async def run(_round: int) -> float:
        return figure

    return run


async def _join_pool(upstream: LedgerClient) -> None:
    """Drivers with nothing of their own: each action draws on their depot's pool."""
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
    raise RuntimeError("nobody decides")


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
