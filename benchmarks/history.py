"""Summary, lists and reports over a long history: median, 95th percentile and peak anonymous memory of each.

    python -m benchmarks.history [--events 1000000] [--times 10] [--folder FOLDER] [--reports]

The history of `benchmarks.reports` is recorded and folded by the product, then the rows of its views are repeated: each
event becomes so many events of other customers at the same time. So ten million events need no hours of folding. The
folder is kept where it is named, and read again by the next run.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from app.runtime.session import Session
from app.runtime.views import read_view, up_to_date
from benchmarks.reports import POLICY, fill
from config.settings import load_settings
from projections.date_ranges import read_range, zone_named
from projections.engine import storage
from projections.engine.pages import PageRequest
from projections.engine.projector import Projector
from projections.engine.sqlite_store import SqliteStore
from projections.policy_history import policy_in_force, published_policies
from projections.reading import AccessScope, ReadResult
from projections.registry import MODELS
from projections.reports.empowerment_gap import gap_report
from projections.reports.loyalty import loyalty_report
from projections.reports.recognition import recognition_report
from projections.reports.service_quality import quality_report
from projections.reports.summary import summary
from projections.views.audit_trail import read_trail
from projections.views.balances import read_balances_page
from projections.views.casework import read_actions, read_escalations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import sqlalchemy as sa

    from projections.views.totals import By

VIEWS = ("casework", "journeys", "authority", "budget_balances", "audit_trail")
_REPEATED = ("interactions", "actions", "escalations", "journeys", "feedback", "asked", "trail")
_IDS = ("action_id", "interaction_id", "customer_id", "escalation_id", "order_id", "asking", "told")
_PLACES = ("position", "since", "last_fact")
_ZONE = zone_named(POLICY["time_zone"])
_BY: tuple[By | None, ...] = (None, "day", "month", "team", "agent", "role", "kind", "reason", "channel")
_ROUNDS = 9


class Memory(Thread):
    """A thread that notes the most anonymous memory of this process, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._ended = 0, Event()

    def run(self) -> None:
        """Look every five milliseconds."""
        while not self._ended.wait(0.005):
            self.look()

    def look(self) -> None:
        """Note the present memory."""
        lines = Path("/proc/self/status").read_text().splitlines()
        self.peak = max(self.peak, *(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon")))

    def end(self) -> int:
        """Return the peak."""
        self._ended.set()
        self.look()
        return self.peak


def repeat(source: Path, folder: Path, name: str, times: int) -> None:
    """Write a view whose rows are those of another one, so many times."""
    model = MODELS[name]()
    generation = SqliteStore(source).live_generation(model)
    engine = SqliteStore(folder).open_generation(model, 1)
    with engine.connect() as connection:
        storage.driver(connection).execute("ATTACH ? AS source", (f"{source / f'{name}.g{generation}.sqlite'}",))
        with connection.begin():
            run = storage.driver(connection).execute
            numbers = f"WITH RECURSIVE c(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM c LIMIT {times})"
            run(f"CREATE TEMP TABLE copies AS {numbers} SELECT k FROM c")
            for table in model.metadata.sorted_tables:
                if not table.name.endswith(("_past", "_facts", "_days")) and table.name != "mentions":
                    _copy(connection, table, times)
            progress = "position * ?, digest, recorded, stopped_position, stopped_type, stopped_reason"
            run(f"INSERT INTO progress SELECT id, {progress} FROM source.progress", (times,))
    projector = Projector(model, engine)
    while not projector.settle(1_000_000):
        pass
    SqliteStore(folder).switch_to(model, 1)
    engine.dispose()


def _copy(connection: sa.Connection, table: sa.Table, times: int) -> None:
    run = storage.driver(connection).execute
    for index in table.indexes:
        run(f"DROP INDEX {index.name}")
    places = {name: f"{name} * {times} + k" for name in _PLACES}
    ids = {name: f"CASE k WHEN 0 THEN {name} ELSE {name} || '~' || k END" for name in _IDS}
    changed = places | ids if table.name in _REPEATED else {}
    if table.name.endswith("_spans"):
        changed = {"first_position": f"first_position * {times}", "last_position": f"(last_position + 1) * {times}"}
    values = ", ".join(changed.get(column.name, column.name) for column in table.columns)
    copies = ", temp.copies" if table.name in _REPEATED else ""
    run(f"INSERT INTO main.{table.name} SELECT {values} FROM source.{table.name}{copies}")
    for index in table.indexes:
        index.create(connection)


class Views:
    """The views of a folder, each with one engine; ``read`` is a `Reader` of reports."""

    def __init__(self, folder: Path) -> None:
        self._engines, store = {}, SqliteStore(folder)
        for name in VIEWS:
            generation = store.live_generation(model := MODELS[name]())
            assert generation is not None, name
            self._engines[name] = store.open_generation(model, generation)

    async def read[T](self, name: str, query: Callable[[sa.Connection], T], /) -> ReadResult[T]:
        """Return the result of a query; queries of several views run at the same time, as in the dashboard."""
        return await asyncio.to_thread(self._read, name, query)

    def _read[T](self, name: str, query: Callable[[sa.Connection], T]) -> ReadResult[T]:
        with self._engines[name].connect() as connection, connection.begin():
            return ReadResult(query(connection), storage.read_progress(connection))


def reads(views: Views) -> Iterator[tuple[str, float, Callable[[], Awaitable[Any]]]]:
    """Yield the reads: name, target in seconds, and a function."""
    for begin, end in ((None, None), ("2024-01", "2024-12"), ("2024-03", "2024-05")):
        for by in _BY:
            times = read_range(begin, end, _ZONE)
            title = f"summary {begin or 'all'} to {end or 'all'} by {by or 'nothing'}"
            yield title, 1.0, partial(summary, views.read, times, by)
    some = AccessScope(frozenset(f"A-{at:04d}" for at in range(0, 500, 24)), frozenset({"T-00"}))
    whole = read_range(None, None, _ZONE)
    yield "summary of a manager by agent", 1.0, partial(summary, views.read, whole, "agent", some)
    limits = {"newest": ("2025-11", "2025-11"), "oldest": ("2024-01", "2024-01"), "year": ("2024-01", "2024-12")}
    ranges = {name: read_range(*one, _ZONE).texts for name, one in limits.items()}
    for order in (True, False):
        for name, times_ in {"no range": (None, None), **ranges}.items():
            page = PageRequest(101, 0, order, None, *times_)
            title = f"{name}, {'newest' if order else 'oldest'} first"
            queries: dict[str, Callable[[sa.Connection], Any]] = {
                "actions": partial(read_actions, page=page),
                "actions of an agent": partial(read_actions, page=page, agent_id="A-0007"),
                "actions of a team": partial(read_actions, page=page, team_id="T-03"),
                "actions of a kind": partial(read_actions, page=page, kind="credit"),
                "actions of a budget's month": partial(read_actions, page=page, period="2024-02"),
                "escalations": partial(read_escalations, page=page),
            }
            for list_name, query in queries.items():
                yield f"{list_name}, {title}", 0.1, partial(views.read, "casework", query)
            yield f"trail, {title}", 0.1, partial(views.read, "audit_trail", partial(read_trail, page=page))
    balances = partial(read_balances_page, equal={}, limit=101)
    yield "balances", 0.1, partial(views.read, "budget_balances", balances)


async def measure(name: str, target: float, run: Callable[[], Awaitable[Any]], rounds: int) -> tuple[str, ...]:
    """Return a line of the table."""
    memory = Memory()
    memory.start()
    took, cpu = [], []
    for _ in range(rounds):
        begun, used = time.perf_counter(), time.process_time()
        await run()
        took.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    p95 = quantiles(took, n=20)[-1] if rounds > 1 else took[0]
    ms = (f"{1000 * one:,.1f}" for one in (median(took), p95, median(cpu)))
    return (name, *ms, f"{memory.end():,}", "met" if median(took) <= target else f"above {target:g} s")


async def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--reports", action="store_true", help="measure the reports on the recorded history, too")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="resolution-ledger-history-"))
    table = Table("read", "median ms", "p95 ms", "CPU ms", "peak anonymous MB", "target")
    try:
        made: dict[str, Callable[[], Awaitable[Any]]] = {}
        async with Session(load_settings({"data_dir": str(folder / "ledger")}, {})) as session:
            if await session.log.last_position() < given.events // 2:
                await fill(session, given.events)
            for name in MODELS if given.reports else VIEWS:
                await up_to_date(session, name)
            if given.reports:
                read, published = partial(read_view, session), await published_policies(session.log)
                policy = await policy_in_force(session.log)
                made["report loyalty"] = partial(loyalty_report, read, published)
                made["report gap"] = partial(gap_report, read, published)
                made["report quality"] = partial(quality_report, read)
                made["report recognition"] = partial(recognition_report, read, policy)
                for name, run in made.items():
                    table.add_row(*await measure(name, 5.0, run, 3))
        live, repeated = folder / "ledger" / "views", folder / f"times-{given.times}"
        for name in VIEWS if given.times > 1 else ():
            if SqliteStore(repeated).live_generation(MODELS[name]()) is None:
                repeat(live, repeated, name, given.times)
        folders = {"": live} | ({f"{given.times} times: ": repeated} if given.times > 1 else {})
        for title, views in folders.items():
            for name, target, run in reads(Views(views)):
                table.add_row(*await measure(title + name, target, run, _ROUNDS))
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
