"""Durable appends: sequential, concurrent and in batches."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID

from eventsourcing.application import Application

from benchmarks.contest import Contest, contest, rate
from benchmarks.reads import BudgetAggregate
from benchmarks.rivals import (
    ES_POSTGRES,
    ES_SQLITE,
    RAW,
    STATE,
    Recorders,
    in_flight,
    make_stream,
    raw_batch,
    stored_events,
)
from benchmarks.uma import uma_appends, uma_appends_in_flight, uma_conditional_appends
from ledger.store.log import Draft, Log

if TYPE_CHECKING:
    from eventsourcing.persistence import ApplicationRecorder

    from benchmarks.contest import Run
    from benchmarks.context import BenchmarkContext

LOG = "ledger, Log.append"
ONE_A_SAVE = {ES_SQLITE: f"{ES_SQLITE}, one an app.save", ES_POSTGRES: f"{ES_POSTGRES}, one an app.save"}
"""An application of the library stores its users' events like this, one after the other."""
SUBJECT = "bench.APPEND.x"
WIDTHS = (64, 256)


async def appends(context: BenchmarkContext) -> list[Contest]:
    """Run all benchmarks of appends."""
    await make_stream(context.session.client, "APPEND")
    log = await Log.unstamped(context.session.client, "APPEND")
    results = []
    with Recorders(context.envs, "append") as recorders:
        number = context.scaled(2_000)
        results.append(
            await contest(
                "append, one at a time",
                "per s",
                {LOG: _ours(log, 1, number), RAW: _raw_single(context, number)}
                | {name: _saves(recorder, 1, number) for name, recorder in recorders.items()}
                | uma_appends(context.uma, 1, number),
                cpu_of=context.cpu,
            )
        )
        results += [
            await contest(
                f"append, {width} in flight",
                "per s",
                {LOG: _ours_in_flight(log, number, width), RAW: _raw_in_flight(context, number, width)}
                | (_saves_of(recorders, number, width) if width == WIDTHS[0] else {})
                | uma_appends_in_flight(context.uma, number, width),
                cpu_of=context.cpu,
            )
            for width in WIDTHS
        ]
        results += [
            await contest(
                f"append with an expected sequence, {width} in flight",
                "per s",
                {LOG: _ours_expected(log, number, width)} | uma_conditional_appends(context.uma, number, width),
                cpu_of=context.cpu,
            )
            for width in (1, *WIDTHS)
        ]
        for size, whole in ((10, 2_000), (100, 10_000), (500, 25_000), (1000, 40_000)):
            number = context.scaled(whole)
            contestants = {LOG: _ours(log, size, number), RAW: _raw(context, size, number)}
            contestants |= {name: _saves(recorder, size, number) for name, recorder in recorders.items()}
            contestants |= uma_appends(context.uma, size, number)
            needs: dict[str, float] = {}
            if size == 500:
                contestants |= {
                    label: _app_saves(context, name, context.scaled(2_000)) for name, label in ONE_A_SAVE.items()
                }
                needs = {RAW: 0.7} | dict.fromkeys(ONE_A_SAVE.values(), 15.0)
            results.append(
                await contest(f"append, batches of {size}", "per s", contestants, needs=needs, cpu_of=context.cpu)
            )
    return results


def _ours(log: Log, size: int, number: int) -> Run:
    async def run(_round: int) -> float:
        begun = time.perf_counter()
        for _ in range(0, number, size):
            await log.append([Draft(SUBJECT, STATE)] * size)
        return rate(len(range(0, number, size)) * size, begun)

    return run


def _ours_in_flight(log: Log, number: int, width: int) -> Run:
    async def run(_round: int) -> float:
        return await in_flight(lambda _: log.append([Draft(SUBJECT, STATE)]), range(number), width)

    return run


def _ours_expected(log: Log, number: int, width: int) -> Run:
    """Append the first event of a new subject each time, only if the subject has no event."""

    async def run(round_number: int) -> float:
        subject = f"bench.APPEND.w{width}r{round_number}"
        return await in_flight(
            lambda one: log.append([Draft(f"{subject}n{one}", STATE, expect=0)]), range(number), width
        )

    return run


def _raw_single(context: BenchmarkContext, number: int) -> Run:
    async def run(_round: int) -> float:
        begun = time.perf_counter()
        for _ in range(number):
            await context.raw.jetstream().publish(SUBJECT, STATE)
        return rate(number, begun)

    return run


def _raw_in_flight(context: BenchmarkContext, number: int, width: int) -> Run:
    async def run(_round: int) -> float:
        jetstream = context.raw.jetstream()
        return await in_flight(lambda _: jetstream.publish(SUBJECT, STATE, timeout=30), range(number), width)

    return run


def _raw(context: BenchmarkContext, size: int, number: int) -> Run:
    async def run(_round: int) -> float:
        begun = time.perf_counter()
        for _ in range(0, number, size):
            await raw_batch(context.raw, SUBJECT, [STATE] * size)
        return rate(len(range(0, number, size)) * size, begun)

    return run


def _saves(recorder: ApplicationRecorder, size: int, number: int) -> Run:
    """Insert batches of ``size`` events, each the first of an aggregate."""

    async def run(_round: int) -> float:
        batches = [stored_events(size) for _ in range(0, number, size)]
        begun = time.perf_counter()
        for batch in batches:
            recorder.insert_events(batch)
        return rate(len(batches) * size, begun)

    return run


def _app_saves(context: BenchmarkContext, database: str, number: int) -> Run:
    """Save single events of one aggregate through the whole library."""

    async def run(_round: int) -> float:
        with Application[UUID](context.envs[database]) as app:
            tab = BudgetAggregate(10**9)
            app.save(tab)
            begun = time.perf_counter()
            for one in range(number):
                tab.take(500, "C-00001", f"I-{one}", "refund", "late")
                app.save(tab)
            return rate(number, begun)

    return run


def _saves_of(recorders: dict[str, ApplicationRecorder], number: int, width: int) -> dict[str, Run]:
    return {name: _saves_in_threads(recorder, number, width) for name, recorder in recorders.items()}


def _saves_in_threads(recorder: ApplicationRecorder, number: int, width: int) -> Run:
    async def run(_round: int) -> float:
        batches = [stored_events(1) for _ in range(number)]
        with ThreadPoolExecutor(width) as pool:
            begun = time.perf_counter()
            await asyncio.gather(
                *(asyncio.get_running_loop().run_in_executor(pool, recorder.insert_events, batch) for batch in batches)
            )
            return rate(number, begun)

    return run
