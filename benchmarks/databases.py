"""Views in PostgreSQL beside SQLite, by turns: events a second while they are built, and the times of reads.

    python -m benchmarks.databases [--interactions 10000] [--rounds 3]

The same events are folded into each view, in batches of 1,000 as the log delivers them; then the reads of the page run
on both. Targets: each view at least 0.6 as fast as in SQLite; a page of a list within 0.1 s, a summary within 1 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.views import facts
from domain.events.decisions import ActionTaken, BudgetOpened
from domain.money import Money
from ledger.store.log import Recorded
from projections.date_ranges import read_range, zone_named
from projections.engine.pages import PageRequest
from projections.engine.postgres_store import PostgresStore
from projections.engine.projector import Projector
from projections.engine.sqlite_store import SqliteStore
from projections.reading import ReadResult
from projections.registry import MODELS
from projections.reports.summary import summary
from projections.views.audit_trail import read_trail
from projections.views.casework import read_actions, read_escalations
from tests.support.any_order import ACTION, decision
from tests.support.postgres import new_database, postgres_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import sqlalchemy as sa

    from projections.engine.storage import ViewStore

NEEDED = 0.6
_BATCH = 1000
_READS = 9
_VIEWS = ("audit_trail", "authority", "budget_balances", "casework", "decisions", "journeys", "loyalty_effects")
"""The views that these events change."""


class _Built:
    """The views of a store that were built; ``read`` is a `Reader` of reports."""

    def __init__(self, store: ViewStore) -> None:
        self.store = store
        self._engines: dict[str, sa.Engine] = {}
        self._projectors: dict[str, Projector] = {}

    def build(self, name: str, messages: Sequence[Recorded]) -> float:
        """Build a view anew; return the events a second."""
        if name in self._engines:
            self._engines.pop(name).dispose()
        model = MODELS[name]()
        generation = self.store.next_generation(model)
        engine = self._engines[name] = self.store.open_generation(model, generation)
        projector = self._projectors[name] = Projector(model, engine)
        begun = time.perf_counter()
        for at in range(0, len(messages), _BATCH):
            projector.take(messages[at : at + _BATCH])
        took = time.perf_counter() - begun
        while not projector.settle(1_000_000):
            pass
        self.store.switch_to(model, generation)
        return len(messages) / took

    async def read[T](self, name: str, query: Callable[[sa.Connection], T], /) -> ReadResult[T]:
        """Return the result of a query."""
        with self._engines[name].connect() as connection, connection.begin():
            return ReadResult(query(connection), self._projectors[name].progress)

    def close(self) -> None:
        """Close the databases."""
        for engine in self._engines.values():
            engine.dispose()
        self.store.close()


def _messages(interactions: int) -> list[Recorded]:
    ending = b',"recordedtime":"2027-01-01T00:00:00.000000Z"}'
    told = [
        ("ledger.fact.bench", json.dumps(json.loads(one), separators=(",", ":")).encode())
        for one in facts(interactions)
    ]
    told += _decisions(interactions // 2)
    return [Recorded(at, subject, one[:-1] + ending) for at, (subject, one) in enumerate(told, 1)]


def _decisions(actions: int) -> Iterator[tuple[str, bytes]]:
    """Yield actions of 60 agents in twelve months, each month's budget opened first."""
    opened, nothing = set[tuple[str, str]](), Money(0, "GBP")
    for at in range(actions):
        agent, period = f"A-{at % 60:02d}", f"2026-{1 + at * 12 // actions:02d}"
        place: dict[str, Any] = {"holder": f"agent:{agent}", "period": period}
        cause: dict[str, Any] = {
            name: ACTION[name] for name in ("source", "request_id", "seen_position", "policy_version")
        } | place
        if (agent, period) not in opened:
            opened.add((agent, period))
            amounts: dict[str, Any] = {"granted": Money(50_000, "GBP"), "carried_over": nothing, "currency": "GBP"}
            yield decision(BudgetOpened(**cause, **amounts), f"{period}-01T00:00:00Z")
        names = {"agent_id": agent, "customer_id": f"C-{at % 900:04d}", "interaction_id": f"I-{2 * at:06d}"}
        taken = ActionTaken(**(ACTION | place | names), action_id=f"act-{at}", authority="own")
        yield decision(taken, f"{period}-{2 + at % 26:02d}T10:{at % 60:02d}:00Z")


def _reads(built: _Built) -> Iterator[tuple[str, float, Callable[[], Awaitable[Any]]]]:
    """Yield reads: name, target in seconds, and a function."""
    times = read_range(None, None, zone_named("Europe/London"))
    for by in (None, "week", "agent", "reason"):
        yield f"summary by {by or 'nothing'}", 1.0, partial(summary, built.read, times, by)
    for newest in (True, False):
        page, title = PageRequest(101, 0, newest), "newest first" if newest else "oldest first"
        yield f"actions, {title}", 0.1, partial(built.read, "casework", partial(read_actions, page=page))
        yield f"escalations, {title}", 0.1, partial(built.read, "casework", partial(read_escalations, page=page))
        yield f"trail, {title}", 0.1, partial(built.read, "audit_trail", partial(read_trail, page=page))


async def _took(run: Callable[[], Awaitable[Any]]) -> float:
    """Return the median seconds of a read."""
    found = []
    for _ in range(_READS):
        begun = time.perf_counter()
        await run()
        found.append(time.perf_counter() - begun)
    return median(found)


def _building(sides: dict[str, _Built], messages: Sequence[Recorded], rounds: int) -> tuple[Table, bool]:
    """Return the table of rates, and whether each ratio is the one that is needed."""
    title = f"Events a second, {len(messages):,} events, medians of {rounds} rounds by turns"
    table = Table("view", *sides, "ratio", f"{NEEDED} or more", title=title, title_justify="left")
    met = True
    for name in _VIEWS:
        runs: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, built in sides.items():
                runs[side].append(built.build(name, messages))
        here, there = (median(runs[side]) for side in sides)
        met &= there / here >= NEEDED
        verdict = "met" if there / here >= NEEDED else "not met"
        table.add_row(name, f"{here:,.0f}", f"{there:,.0f}", f"{there / here:.2f}", verdict)
    return table, met


async def _reading(sides: dict[str, _Built]) -> tuple[Table, bool]:
    table, met = Table("read", *(f"{side}, ms" for side in sides), "target", title="Reads", title_justify="left"), True
    for pair in zip(*(_reads(built) for built in sides.values()), strict=True):
        took = [await _took(run) for _, _, run in pair]
        name, target, _ = pair[0]
        met &= max(took) <= target
        shown = (f"{1000 * one:,.1f}" for one in took)
        table.add_row(name, *shown, "met on both" if max(took) <= target else f"above {target:g} s")
    return table, met


def main() -> int:
    """Measure and print; the exit status is 1 if a target is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=10_000, help="each of about 5 facts")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    messages = _messages(given.interactions)
    with tempfile.TemporaryDirectory() as folder, postgres_server(durable=True) as server:
        sides = {
            "SQLite": _Built(SqliteStore(Path(folder))),
            "PostgreSQL": _Built(PostgresStore(new_database(server))),
        }
        try:
            for built in sides.values():
                built.build("people", messages)  # the summary reads it, though nothing is in it
            building, is_built_fast = _building(sides, messages, given.rounds)
            reading, is_read_fast = asyncio.run(_reading(sides))
        finally:
            for built in sides.values():
                built.close()
    for table in (building, reading):
        Console(width=120).print(table)
    return 0 if is_built_fast and is_read_fast else 1


if __name__ == "__main__":
    sys.exit(main())
