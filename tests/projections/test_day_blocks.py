"""Day blocks hold what the rows of their day say, after any facts, corrections and orders."""

import asyncio
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from app.runtime.views import read_view
from domain.events import decisions
from domain.events.decisions import Record
from domain.money import Money
from projections.date_ranges import DateRange
from projections.engine.day_blocks import DayColumns, DayTable
from projections.engine.storage import driver
from projections.reading import AccessScope
from projections.reports.summary import summary
from projections.views.casework import ACTION_DAYS, ESCALATION_DAYS, INTERACTION_DAYS, read_actions
from projections.views.journeys import FEEDBACK_DAYS, JOURNEY_DAYS
from tests.support.any_order import ACTION, OPENED, POSTED, History, decision
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.upstreams import Upstream
from tests.support.view_histories import Views, recorded

TABLES: dict[str, tuple[DayTable, ...]] = {
    "casework": (ACTION_DAYS, INTERACTION_DAYS, ESCALATION_DAYS),
    "journeys": (JOURNEY_DAYS, FEEDBACK_DAYS),
}
ALWAYS = DateRange(None, None, ZoneInfo("Europe/London"))


def facts(random: Random, count: int) -> History:
    """Return facts about few interactions and customers on a dozen days, in no order, and decisions and corrections."""
    found: History = [OPENED]
    told: list[Document] = []
    for number in range(count):
        time = f"2026-01-{random.randint(5, 16):02d}T{random.choice((0, 10, 23)):02d}:{random.randint(0, 59):02d}:00Z"
        if random.random() < 0.2:
            found.append(decision(_decided(random, f"act-{random.randint(1, 5)}"), time))
            continue
        if told and random.random() < 0.15:
            wrong = random.choice(told)
            name = wrong["type"].removeprefix("resolution.").removesuffix(".v1")
            data = random.choice((None, _data(random, name)))
            told_by = {"source_of": "crm", "id_of": wrong["id"], "reason": "typed wrongly", "data": data}
            found.append(event(f"c-{number}", "fact.corrected", "crm", **told_by))
            continue
        name = random.choice(_NAMES)
        told.append(event(f"e-{number}", name, "crm", time, **_data(random, name)))
        found.append(told[-1])
    return found


def _decided(random: Random, action_id: str) -> Record:
    amount = Money(random.randint(1, 900), "GBP")
    if random.random() < 0.3:
        return decisions.ActionSettled(**POSTED, action_id=action_id, held=amount)
    data = ACTION | {"interaction_id": random.choice(("I-1", "I-2", "I-3")), "amount": amount}
    return decisions.ActionTaken(**data, action_id=action_id, authority="own")


_NAMES = ("interaction.opened",) * 3 + (
    "interaction.resolved",
    "interaction.resolved",
    "interaction.transferred",
    "interaction.reopened",
    "feedback.received",
    "action.reported",
    "escalation.reported",
    "escalation.outcome_reported",
)


def _data(random: Random, name: str) -> Document:
    interaction = {"interaction_id": random.choice(("I-1", "I-2", "I-3"))}
    told: dict[str, Document] = {
        "interaction.opened": interaction
        | {"customer_id": random.choice(("C-1", "C-2")), "agent_id": random.choice(("A-1", "A-2"))}
        | {"channel": random.choice(("phone", "chat")), "reason": "late", "team_id": random.choice(("T-1", "T-2"))},
        "interaction.resolved": interaction,
        "interaction.transferred": interaction | {"to_team_id": "T-3", "story_repeated": random.random() < 0.5},
        "interaction.reopened": interaction,
        "feedback.received": interaction
        | {"customer_id": "C-1", "instrument": "csat", "score": random.randint(1, 5), "best": 5, "worst": 1},
        "action.reported": interaction
        | {"agent_id": "A-1", "kind": "refund", "reason": "late", "amount": gbp(f"{random.randint(0, 9)}.00")},
        "escalation.reported": interaction | {"escalation_id": random.choice(("X-1", "X-2")), "amount": gbp("5.00")},
        "escalation.outcome_reported": {"escalation_id": random.choice(("X-1", "X-2")), "verdict": "denied"},
    }
    return told[name]


def rows(connection: sa.Connection, table: DayTable) -> list[str]:
    """Return the rows that a reader of a table's blocks gets, with words instead of their numbers."""
    columns = DayColumns.of(connection, table, table.columns)
    found: list[str] = []
    for chunk in columns.read(connection, None, None):
        words = {name: columns.words.of(name) for name in table.columns if name not in table.forms}
        shown = {
            name: [words[name][at] for at in part] if name in words else part.tolist() for name, part in chunk.items()
        }
        found += map(repr, zip(*shown.values(), strict=True))
    return sorted(found)


async def check(views: Views) -> int:
    """Compare what the blocks hold with the rows themselves; return the number of blocks."""
    number = 0
    for view, tables in TABLES.items():
        for table in tables:

            def compare(connection: sa.Connection, table: DayTable = table) -> int:
                blocks = connection.execute(sa.select(sa.func.count()).select_from(table.blocks)).scalar_one()
                with_blocks = rows(connection, table)
                connection.execute(sa.text("SAVEPOINT before"))
                driver(connection).execute(f"DELETE FROM {table.name}_days")
                assert with_blocks == rows(connection, table), table.name
                connection.execute(sa.text("ROLLBACK TO before"))
                return blocks

            number += (await views.read(view, compare)).result
    return number


@settings(max_examples=max(2, settings().max_examples // 4), deadline=None)
@given(st.integers(0, 10**9))
def test_blocks_hold_what_the_rows_say_after_any_facts(seed: int) -> None:
    """Each fact is committed by itself, with blocks of all days before it: it deletes those that it makes wrong."""
    random = Random(seed)
    messages = recorded(facts(random, 40))
    with TemporaryDirectory() as folder:
        views = Views(Path(folder), tuple(TABLES))
        try:
            at = 0
            while at < len(messages):
                size = random.randint(1, 4)
                views.take(messages[at : at + size], originals=messages)
                at += size
                views.settle(random.choice((1, 1000)))
                asyncio.run(check(views))
            while not views.settle(1000):
                pass
            assert asyncio.run(check(views))
        finally:
            views.close()


@pytest.mark.parametrize("by", [None, "day", "month", "agent", "team", "kind", "reason", "channel"])
def test_the_summary_is_the_same_from_blocks_and_from_rows(by: Any, tmp_path: Path) -> None:
    views = Views(tmp_path, (*TABLES, "budget_balances")).take(recorded(facts(Random(7), 300)))
    limited = AccessScope(frozenset({"A-2"}), frozenset({"T-1"}))
    try:
        before = [asyncio.run(summary(views.read, ALWAYS, by, *scope)) for scope in ((), (limited,))]
        assert before[0]["total"]["actions"]["given"] > before[1]["total"]["interactions"]["opened"] > 0  # type: ignore[index]
        while not views.settle(10):
            pass
        assert asyncio.run(check(views))
        assert [asyncio.run(summary(views.read, ALWAYS, by, *scope)) for scope in ((), (limited,))] == before
    finally:
        views.close()


def test_a_day_that_changes_gets_its_block_again_only_after_a_while(tmp_path: Path) -> None:
    views = Views(tmp_path, tuple(TABLES), quiet_seconds=3600)
    later = event("late", "escalation.reported", escalation_id="X-9", amount=gbp("5.00"))
    messages = recorded([*facts(Random(3), 100), later])
    try:
        views.take(messages[:-1], originals=messages)
        while not views.settle(1000):
            pass
        complete = asyncio.run(check(views))
        views.take(messages[-1:], originals=messages)
        assert views.settle(1000)
        assert 0 < asyncio.run(check(views)) < complete
    finally:
        views.close()


async def test_a_view_that_has_read_the_whole_log_has_the_blocks_of_all_its_days(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    await upstream.action("r-1", "5.00")

    def days(connection: sa.Connection) -> list[str]:
        return list(connection.execute(sa.select(ACTION_DAYS.blocks.c.day)).scalars())

    (action,) = (await read_view(upstream.session, "casework", read_actions)).result
    assert (await read_view(upstream.session, "casework", days)).result == [action["time"][:10]]
