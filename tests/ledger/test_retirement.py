"""Old events leave the stream by an operator's word: everything reads on through the archive, and proofs hold."""

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from app.runtime.retirement import retire
from app.runtime.seal import verification
from app.runtime.session import Session
from config import topology
from consumers.seal.archive_service import archive_of
from ledger.archive.event_archive import ArchiveError
from ledger.errors import LedgerError
from ledger.store.log import Draft, Log
from ledger.store.stream_retirement import COPY, UnfinishedRetirementError
from ledger.store.streams import js_api, verify_streams
from projections.engine.projector import rebuild
from projections.registry import MODELS
from tests.support.forked_cli import CommandLine
from tests.support.sealed_logs import all_events, settings_in
from tests.support.upstreams import upstream_of
from tests.support.view_rows import record_history, rows_of

pytestmark = pytest.mark.integration
TODAY = datetime.now(UTC).date()
OLD = 12
"""The number of events that were recorded yesterday."""


def nothing(_done: int, _of: int) -> None:
    """Ignore progress."""


async def backdate(session: Session, old: int = OLD) -> int:
    """Let the first events have been recorded yesterday, or all but so many; return the last one's position."""
    events = await all_events(session)
    assert len(events) > abs(old)
    old %= len(events)
    yesterday, today = str(TODAY - timedelta(days=1)).encode(), str(TODAY).encode()
    events[:old] = [event._replace(data=event.data.replace(today, yesterday)) for event in events[:old]]
    operator = await session.connection("backdate", user="operator")
    await js_api(operator, f"STREAM.DELETE.{topology.LEDGER}")
    declared = next(one for one in topology.stream_configs() if one["name"] == topology.LEDGER)
    await js_api(operator, f"STREAM.CREATE.{topology.LEDGER}", declared)
    await (await Log.unstamped(operator, topology.LEDGER)).append([Draft(one.subject, one.data) for one in events])
    return old


@pytest.fixture
async def stopped(session: Session) -> Session:
    """Return a ledger with events of two days, on which no role runs any more."""
    async with upstream_of(session, history=True) as upstream:
        await record_history(upstream)
    await backdate(session)
    return session


async def state_of(session: Session) -> tuple[int, int]:
    info = await js_api(session.client, f"STREAM.INFO.{topology.LEDGER}")
    return info["state"]["first_seq"], info["state"]["last_seq"]


async def rows_from_the_log(session: Session) -> dict[str, dict[str, list[str]]]:
    for name, make in MODELS.items():
        await rebuild(make(), session.views, await session.connection(name), session.log)
    return {name: rows_of(session.views, make()) for name, make in MODELS.items()}


async def answers(session: Session) -> tuple[object, ...]:
    """Return the log's answers to each way of reading."""
    log, events = session.log, await all_events(session)
    subjects = sorted({event.subject for event in events})
    return (
        events,
        [await log.at(event.position) for event in events],
        [await log.last(subject) for subject in subjects],
        [await log.read_from_leader(subject) for subject in subjects],
        [
            await log.read_from_leader(subject, position)
            for subject in subjects
            for position in (0, OLD - 1, OLD, OLD + 1)
        ],
        await log.last_of_each([*subjects, "ledger.none"]),
        await log.last("ledger.fact.*"),
        [await log.last(f"{subject.rpartition('.')[0]}.*") for subject in subjects],
        await log.last("ledger.none"),
        await log.last("ledger.budget.none.GBP.*"),
        [await log.read_subject(subject) for subject in subjects],
        [await log.read_subject(">", position) for position in range(len(events) + 1)],
        [(await log.read_batch(">", position, 5))[0] for position in range(len(events) + 1)],
        await log.last_position(),
    )


async def test_reading_goes_on_through_the_archive(stopped: Session) -> None:
    before, rows, (_, end) = await answers(stopped), await rows_from_the_log(stopped), await state_of(stopped)
    assert await retire(stopped, TODAY, (), nothing) == OLD
    assert await state_of(stopped) == (OLD + 1, end)
    async with Session(settings_in(stopped.data_dir)) as again:
        assert await answers(again) == before
        assert await rows_from_the_log(again) == rows
        found = await verification(again, [], (), progressed=nothing)
        assert (found["findings"], found["size"], found["gaps"]) == ([], end, [])
        await verify_streams(again.client, topology.stream_configs(1, OLD))
