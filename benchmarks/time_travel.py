"""Time travel at a million events: balances as of any position, beside a fold of the log up to it."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.runtime.session import Session
from benchmarks.contest import Contest, contest
from benchmarks.ledgers import budget_drafts
from benchmarks.seal import NEEDED, constant_target
from config.settings import load_settings
from ledger.store.log import Draft
from projections.engine.projector import catch_up
from projections.views.balances import Balances, read_balances

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

    from benchmarks.contest import Run
    from benchmarks.context import BenchmarkContext

EVENTS = 1_000_000
A_BUDGET = 1_000
POINTS = 20


async def travels(context: BenchmarkContext) -> list[Contest]:
    """Measure all balances at random positions, the slowest of them, and the cost of the history."""
    number = context.scaled(EVENTS)
    folder = context.folder / "travel"
    async with Session(load_settings({"data_dir": str(folder)}, {})) as session:
        await _fill(session, number // A_BUDGET)
        views, reader = session.views, await session.connection("fold")
        begun = time.perf_counter()
        await catch_up(Balances(), views, reader, session.log)
        folding = (time.perf_counter() - begun) * 1000
    engine = views.open_generation(Balances(), 1)
    rng = random.Random(7)

    async def slowest(_round: int) -> float:
        with engine.connect() as connection:
            return max(_took(connection, rng.randrange(1, number)) for _ in range(POINTS))

    async def fold(_round: int) -> float:
        return folding

    result = await contest(
        "balances as of any point, the slowest of 20",
        "ms",
        {"the view": slowest, "folding the log again": fold, NEEDED: constant_target(1000)},
        needs={NEEDED: 1},
    )
    size = await contest(
        "kept for time travel", "bytes an event", {"the view's file": _file_size(folder / "views", number)}, rounds=1
    )
    engine.dispose()
    return [result, size]


def _file_size(views: Path, number: int) -> Run:
    async def run(_round: int) -> float:
        return sum(path.stat().st_size for path in views.glob("budget_balances.g1.sqlite*")) / number

    return run


def _took(connection: sa.Connection, position: int) -> float:
    begun = time.perf_counter()
    assert read_balances(connection, position=position)
    return (time.perf_counter() - begun) * 1000


async def _fill(session: Session, budgets: int) -> None:
    """Record budgets of a thousand events each, interleaved."""
    template = budget_drafts("B-000000", A_BUDGET, datetime.now(UTC))
    for event in template:
        for at in range(0, budgets, 1000):
            await session.log.append(
                [
                    Draft(event.subject.replace("B-000000", name), event.data.replace(b"B-000000", name.encode()))
                    for name in (f"B-{number:06d}" for number in range(at, min(at + 1000, budgets)))
                ]
            )
