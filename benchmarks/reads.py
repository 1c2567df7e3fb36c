"""Reads: one aggregate, the whole log, and following it live."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from benchmarks.contest import Contest, contest, rate
from benchmarks.ledgers import budget_of_actions, load_budget
from benchmarks.producer import NATS_URL
from benchmarks.rivals import (
    ES_JETSTREAM,
    ES_POSTGRES,
    RAW,
    STATE,
    Recorders,
    forget,
    make_stream,
    raw_follow,
    stored_events,
)
from benchmarks.uma import uma_replay
from ledger.store.log import Draft, Log
from ledger.store.subscription import Follower, ReadCursor

if TYPE_CHECKING:
    from eventsourcing.persistence import ApplicationRecorder

    from benchmarks.contest import Run
    from benchmarks.context import BenchmarkContext

BUDGET = "ledger, a budget"
FOLLOWER = "ledger, Follower"
COLD = f"{ES_JETSTREAM}, first read"


class BudgetAggregate(Aggregate):
    """An aggregate of the library with the effect of actions on a budget."""

    @event("Opened")
    def __init__(self, granted_minor: int) -> None:
        self.left_minor = granted_minor

    @event("Taken")
    def take(self, amount_minor: int, customer_id: str, interaction_id: str, kind: str, reason: str) -> None:
        """Take an action."""
        self.left_minor -= amount_minor


async def aggregates(context: BenchmarkContext) -> list[Contest]:
    """Measure the loading of one aggregate with 10, 100 and 1000 events, in milliseconds."""
    results = []
    apps: dict[str, Application[Any]] = {
        name: Application(env | {"NATS_STREAM": f"tabs{secrets.token_hex(3)}"}) for name, env in context.envs.items()
    }
    try:
        for size in (10, 100, 1000):
            subject = await budget_of_actions(context.session.log, size)
            times = context.scaled(max(20, 20_000 // size // 10))
            contestants: dict[str, Run] = {BUDGET: _budget(context, subject, times)}
            for name, app in apps.items():
                tab = BudgetAggregate(10**9)
                for number in range(size - 1):
                    tab.take(500, "C-00001", f"I-{number:05d}", "refund", "late")
                app.save(tab)
                contestants[name] = _loads(app, tab.id, times)
            contestants[COLD] = _loads(apps[ES_JETSTREAM], tab.id, times, cold=True)
            needs = {ES_POSTGRES: 1.0} if size == 100 else {}
            results.append(
                await contest(f"load an aggregate of {size} events", "ms", contestants, needs=needs, cpu_of=context.cpu)
            )
    finally:
        for app in apps.values():
            app.close()
    return results


def _budget(context: BenchmarkContext, subject: str, times: int) -> Run:
    async def run(_round: int) -> float:
        took = []
        for _ in range(times):
            begun = time.perf_counter()
            await load_budget(context.session.log, subject)
            took.append((time.perf_counter() - begun) * 1000)
        return median(took)

    return run


def _loads(app: Application[Any], identifier: Any, times: int, *, cold: bool = False) -> Run:
    async def run(_round: int) -> float:
        took = []
        app.repository.get(identifier)
        for _ in range(times):
            if cold:
                forget(app.recorder)
            begun = time.perf_counter()
            app.repository.get(identifier)
            took.append((time.perf_counter() - begun) * 1000)
        return median(took)

    return run


# ---------------------------------------------------------------------- the whole log


async def replays(context: BenchmarkContext) -> list[Contest]:
    """Measure the reading of all events from the first one."""
    number = context.scaled(50_000) // 1000 * 1000 or 1000
    await make_stream(context.session.client, "REPLAY")
    log = await Log.unstamped(context.session.client, "REPLAY")
    with Recorders(context.envs, "replay") as recorders:
        for _ in range(0, number, 1000):
            await log.append([Draft("bench.REPLAY.x", STATE)] * 1000)
            for recorder in recorders.values():
                recorder.insert_events(stored_events(1000))
        contestants: dict[str, Run] = {
            FOLLOWER: _follows(context, log, number),
            f"{RAW}, ordered consumer": _raw_replay(context, number),
        }
        contestants |= {name: _selects(recorder, number) for name, recorder in recorders.items()}
        contestants |= uma_replay(context.uma, number)
        return [await contest("replay of a log", "per s", contestants, cpu_of=context.cpu)]


def _follows(context: BenchmarkContext, log: Log, number: int) -> Run:
    async def run(_round: int) -> float:
        client = await context.session.connection("bench")
        begun, seen = time.perf_counter(), 0
        async for batch in Follower(client, log, "bench").batches(until=number):
            seen += len(batch)
        assert seen == number
        return rate(number, begun)

    return run


def _raw_replay(context: BenchmarkContext, number: int) -> Run:
    async def run(_round: int) -> float:
        return await raw_follow(context.raw, "REPLAY", "bench.REPLAY.>", number)

    return run


def _selects(recorder: ApplicationRecorder, number: int) -> Run:
    async def run(_round: int) -> float:
        begun, seen = time.perf_counter(), 0
        while seen < number:
            seen = recorder.select_notifications(seen, 1000, inclusive_of_start=False)[-1].id
        return rate(number, begun)

    return run


# ---------------------------------------------------------------------- live


async def live(context: BenchmarkContext) -> list[Contest]:
    """Measure live following of another process that appends batches of 500, from the first to the last event."""
    number = context.scaled(40_000) // 500 * 500 or 500
    await make_stream(context.session.client, "LIVE")
    log = await Log.unstamped(context.session.client, "LIVE")
    await log.append([Draft("bench.LIVE.x", STATE)])

    async def ours(_round: int) -> float:
        start = await log.last_position()
        client = await context.session.connection("bench")
        follower = Follower(client, log, "bench", ReadCursor(start))
        producer = await _producer(context, number)
        begun, first = 0.0, 0
        async for batch in follower.batches(until=start + number):
            if not begun:
                begun, first = time.perf_counter(), len(batch)
        speed = rate(number - first, begun)
        await producer.wait()
        return speed

    async def raw(_round: int) -> float:
        start = await log.last_position()
        done, seen, begun = asyncio.Event(), 0, 0.0

        async def count(_message: Any) -> None:
            nonlocal seen, begun
            seen += 1
            begun = begun or time.perf_counter()
            if seen >= number:
                done.set()

        from nats.js.api import ConsumerConfig, DeliverPolicy

        subscription = await context.raw.jetstream().subscribe(
            "bench.LIVE.>",
            stream="LIVE",
            ordered_consumer=True,
            cb=count,
            pending_msgs_limit=-1,
            pending_bytes_limit=-1,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start + 1),
        )
        producer = await _producer(context, number)
        await done.wait()
        speed = rate(number - 1, begun)
        await subscription.unsubscribe()
        await producer.wait()
        return speed

    ordered = f"{RAW}, ordered consumer"
    return [
        await contest("live follow", "per s", {FOLLOWER: ours, ordered: raw}, needs={ordered: 0.5}, cpu_of=context.cpu)
    ]


async def _producer(context: BenchmarkContext, number: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.producer", str(number), env=os.environ | {NATS_URL: context.session.url}
    )
