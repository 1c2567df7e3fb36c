"""The flow of events: facts from inbox to ledger, actions into balances, history from CSV."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.sqlite import SQLiteTrackingRecorder

from app.importing.import_report import ImportReport
from app.importing.importer import import_events
from app.importing.mapping import load_mapping
from app.outcome import Outcome
from app.publisher import Publisher
from benchmarks.contest import Contest, contest, rate
from benchmarks.ledgers import budget_of_actions, fact
from benchmarks.reads import BudgetAggregate
from benchmarks.rivals import ES_JETSTREAM, ES_SQLITE, RAW, Recorders, make_stream, raw_batch, raw_follow
from config import topology
from ledger.store.atomic_batches import in_batches
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api
from projections.engine.projector import Projector
from projections.engine.sqlite_store import SqliteStore
from projections.views.balances import Balances

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.outcome import Outgoing
    from benchmarks.contest import Run
    from benchmarks.context import BenchmarkContext

INTAKE, BALANCES, IMPORT = "ledger, intake", "ledger, budget_balances", "ledger, import"
RAW_INTAKE = f"{RAW}: fetch, batch, ack"
RAW_ORDERED = f"{RAW}, ordered consumer"


# ---------------------------------------------------------------------- intake


async def intake(context: BenchmarkContext) -> list[Contest]:
    """Measure the intake, beside the minimal work of any intake, which does not parse events."""
    session, number = context.session, context.scaled(50_000) // 1000 * 1000 or 1000
    door = await Log.unstamped(session.client, topology.IMPORT)
    await make_stream(session.client, "INTAKE")
    numbers = iter(range(0, 10**9, 1000))

    async def fill() -> None:
        for start in (next(numbers) for _ in range(number // 1000)):
            await door.append([Draft("resolution.import.bench", fact(one)) for one in range(start, start + 1000)])

    async def ours(_round: int) -> float:
        await fill()
        begun, first, start = None, 0, await session.log.last_position()
        async with context.role("intake"):
            while (position := await session.log.last_position() - start) < number:
                if begun is None and position:
                    begun, first = time.perf_counter(), position
                await asyncio.sleep(0.005)
            assert begun
            return rate(number - first, begun)

    async def raw(_round: int) -> float:
        await fill()
        info = await js_api(session.client, f"STREAM.INFO.{topology.IMPORT}")
        jetstream = session.client.jetstream()
        from nats.js.api import ConsumerConfig, DeliverPolicy

        name = f"bench{secrets.token_hex(3)}"
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=info["state"]["last_seq"] - number + 1
        )
        subscription = await jetstream.pull_subscribe(
            "resolution.inbox.*", durable=name, stream=topology.IMPORT, config=config
        )
        begun, done = time.perf_counter(), 0
        while done < number:
            messages = await subscription.fetch(1000, timeout=5)
            await raw_batch(session.client, "bench.INTAKE.x", [message.data for message in messages])
            for message in messages:
                await message.ack()
            done += len(messages)
        speed = rate(number, begun)
        await subscription.unsubscribe()
        await js_api(session.client, f"CONSUMER.DELETE.{topology.IMPORT}.{name}")
        async with context.role("intake"):  # records the run's remaining facts outside of the measured time
            await _until_taken(context)
        return speed

    return [await contest("intake", "per s", {INTAKE: ours, RAW_INTAKE: raw}, cpu_of=context.cpu)]


async def _until_taken(context: BenchmarkContext) -> None:
    while True:
        info = await js_api(context.session.client, f"CONSUMER.INFO.{topology.IMPORT}.{topology.INTAKE_CONSUMER}")
        if "error" not in info and info["num_pending"] == 0 and info["num_ack_pending"] == 0:
            return
        await asyncio.sleep(0.02)


# ---------------------------------------------------------------------- balances


class Spent(SQLiteTrackingRecorder):
    """A table of balances in the library's way: one transaction for each event."""

    def construct_create_table_statements(self) -> list[str]:
        """Return the table's definition, after that of the tracking."""
        return [
            *super().construct_create_table_statements(),
            "CREATE TABLE IF NOT EXISTS spent (holder TEXT PRIMARY KEY, spent_minor INTEGER, actions INTEGER)",
        ]

    def add(self, holder: str, amount_minor: int, tracking: Tracking) -> None:
        """Add an action."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(
                "INSERT INTO spent VALUES (?, ?, 1) ON CONFLICT (holder) DO UPDATE SET "
                "spent_minor = spent_minor + excluded.spent_minor, actions = actions + 1",
                (holder, amount_minor),
            )


class SpentProjection(Projection[Spent]):
    """The projection of the library's events into that table."""

    @singledispatchmethod
    def process_event(self, _event: Any, tracking: Tracking) -> None:
        """Record the position only."""
        self.view.insert_tracking(tracking)

    @process_event.register
    def taken(self, event: BudgetAggregate.Taken, tracking: Tracking) -> None:  # type: ignore[name-defined]
        """Add an action."""
        self.view.add(str(event.originator_id), event.amount_minor, tracking)


async def balances(context: BenchmarkContext) -> list[Contest]:
    """Measure budget_balances from JetStream into SQLite, beside a raw consumer and the library's ProjectionRunner."""
    session, number = context.session, context.scaled(200_000) // 1000 * 1000 or 1000
    start = await session.log.last_position()
    for _ in range(number // 1000):
        await budget_of_actions(session.log, 1000)
    end = await session.log.last_position()

    async def ours(turn: int) -> float:
        reader = await session.connection("bench")
        folder = context.folder / f"balances{turn}"
        projector = Projector(Balances(), SqliteStore(folder).open_generation(Balances(), 1))
        begun = time.perf_counter()
        await projector.follow(reader, session.log, until=end)
        return rate(end, begun)

    async def raw(_round: int) -> float:
        return await raw_follow(context.raw, topology.LEDGER, "ledger.>", end)

    contestants: dict[str, Run] = {BALANCES: ours, RAW_ORDERED: raw}
    few = context.scaled(5_000)
    for name in sorted(context.envs.keys() - {ES_SQLITE}):  # the library has no subscription on SQLite
        contestants[f"ProjectionRunner from {name} into SQLite"] = _runner(context, name, few)
    needs = {name: 10.0 for name in contestants if name.startswith("ProjectionRunner")}
    assert end - start == number
    return [await contest("budget_balances", "per s", contestants, needs=needs, cpu_of=context.cpu)]


def _runner(context: BenchmarkContext, database: str, number: int) -> Run:
    env = context.envs[database] | {"NATS_STREAM": "spent"}
    with Application[UUID](env) as app:
        last = 0
        for _ in range(max(1, number // 500)):
            tab = BudgetAggregate(10**9)
            for one in range(499):
                tab.take(500, "C-1", f"I-{one}", "refund", "late")
            last = app.save(tab)[-1].notification.id
        first = app.recorder.select_notifications(last, 1)[0].id - max(1, number // 500) * 500

    async def run(turn: int) -> float:
        own = env | {
            "SPENTPROJECTION_PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SPENTPROJECTION_SQLITE_DBNAME": str(context.folder / f"spent-{secrets.token_hex(3)}-{turn}.db"),
        }
        begun = time.perf_counter()
        with ProjectionRunner(
            application_class=Application[UUID], projection_class=SpentProjection, view_class=Spent, env=own
        ) as runner:
            await asyncio.to_thread(runner.wait, last, 120)
            return rate(last - first, begun)

    return run


# ---------------------------------------------------------------------- import


async def imports(context: BenchmarkContext) -> list[Contest]:
    """Measure the import of invoices with four lines each from CSV, through the shipped mapping; all are new."""
    session, number = context.session, context.scaled(20_000)
    await make_stream(session.client, "IMPORTED")
    runs = iter(range(1, 1000))

    def events() -> Iterator[Outgoing]:
        path = _invoices(context.folder, next(runs), number)
        return import_events(load_mapping("online_retail"), [path], ImportReport(), lambda _: None)

    async def ours(_round: int) -> float:
        outcome = Outcome()
        made, begun = events(), time.perf_counter()
        publisher = await Publisher.open(session, outcome, lambda _: None)
        for event in made:
            await publisher.add(event)
        await publisher.settle()
        assert outcome.recorded == number, outcome.wire()
        return rate(number, begun)

    async def raw(_round: int) -> float:
        made, begun = events(), time.perf_counter()
        for part in in_batches(made, lambda event: len(event.data)):
            await raw_batch(context.raw, "bench.IMPORTED.x", [event.data for event in part])
        return rate(number, begun)

    rivals = {name: env for name, env in context.envs.items() if name != ES_JETSTREAM}
    with Recorders(rivals, "import") as recorders:

        def saves(name: str) -> Run:
            async def run(turn: int) -> float:
                made, begun, done = events(), time.perf_counter(), 0
                for done, event in enumerate(made, 1):
                    stored = StoredEvent(_uuid(turn, done), 1, "purchase.completed", event.data)
                    recorders[name].insert_events([stored])
                    if done == min(number, 2_000):
                        break
                return rate(done, begun)

            return run

        contestants: dict[str, Run] = {IMPORT: ours, f"{RAW}, batches": raw}
        contestants |= {f"{name}, one a save": saves(name) for name in recorders}
        async with context.role("intake") as pid:
            await ours(0)  # waits for the start, which reads known ids
            cpu = context.cpu | {"intake": [pid]}
            return [await contest("import from CSV", "per s", contestants, cpu_of=cpu)]


def _uuid(turn: int, number: int) -> UUID:
    return UUID(int=(turn + 1) * 10**9 + number)


def _invoices(folder: Path, run: int, number: int) -> Path:
    """Write a CSV file like that of Online Retail, with invoice numbers of this run."""
    path = folder / f"invoices{run}.csv"
    with path.open("w") as file:
        file.write("InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n")
        for invoice in range(number):
            for line in range(4):
                file.write(
                    f"{run * 10**7 + invoice},8512{line},WHITE HANGING HEART,{line + 1},2010-12-01 08:26:00,2.55,"
                    f"{12000 + invoice % 4000}.0,United Kingdom\n"
                )
    return path
