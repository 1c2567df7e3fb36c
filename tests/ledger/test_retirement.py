"""Old events leave the stream by an operator's word: everything reads on through the archive, and proofs hold."""

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from app.runtime import retirement
from app.runtime.retirement import retire
from app.runtime.seal import verification
from app.runtime.session import Session
from config import topology
from consumers.seal.archive_service import archive_of
from ledger.archive.event_archive import ArchiveError
from ledger.errors import DriftError, LedgerError
from ledger.store import streams
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api, verify_streams
from projections.engine.projector import rebuild
from projections.registry import MODELS
from tests.support.forked_cli import CommandLine
from tests.support.sealed_logs import all_events, settings_in
from tests.support.upstreams import upstream_of
from tests.support.view_rows import record_history, rows_of

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
        await log.last_of_each([*subjects, "ledger.none"]),
        await log.last("ledger.fact.*"),
        await log.last("ledger.none"),
        [await log.read_subject(subject) for subject in subjects],
        [await log.read_subject(">", position) for position in range(len(events) + 1)],
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
        await verify_streams(again.client, topology.stream_configs())


async def test_decisions_go_on_with_budgets_whose_events_have_left(stopped: Session) -> None:
    old = await backdate(stopped, -1)
    assert await retire(stopped, TODAY, (), nothing) == old
    known = set[str]()
    async with Session(settings_in(stopped.data_dir)) as again:
        for round_ in range(2):
            async with upstream_of(again, history=True) as upstream:
                answer = await upstream.action(f"r-1{round_}", "1.00", time="2026-02-12T12:00:00Z")
                assert answer["outcome"] == "taken", answer
                twice = await upstream.action(f"r-1{round_}", "1.00", time="2026-02-12T12:00:00Z")
                assert twice["action_id"] == answer["action_id"]
                first = await upstream.action("r-10", "1.00", time="2026-02-12T12:00:00Z")
                known.add(first["action_id"])
            shutil.rmtree(again.data_dir / "index")  # the next processes read everything again
        found = await verification(again, [], (), progressed=nothing)
        assert found["findings"] == []
    assert len(known) == 1


async def test_an_interrupted_removal_is_refused_until_it_is_run_again(
    stopped: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = streams.update_stream
    calls = 0

    async def once(*given: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        await update(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(retirement, "update_stream", once)
        with pytest.raises(KeyboardInterrupt):
            await retire(stopped, TODAY, (), nothing)
    with pytest.raises(DriftError, match=r"max_msgs|discard"):
        async with Session(settings_in(stopped.data_dir)):
            pass
    async with Session(settings_in(stopped.data_dir), examines=True) as again:
        assert await retire(again, TODAY, (), nothing) == OLD
    async with Session(settings_in(stopped.data_dir)) as again:
        assert len(await all_events(again)) == await again.log.last_position()


async def test_what_has_left_is_missed_by_name_where_the_archive_lacks_it(stopped: Session) -> None:
    await retire(stopped, TODAY, (), nothing)
    folder = archive_of(stopped.data_dir).folder
    folder.rename(folder.with_name("elsewhere"))
    async with Session(settings_in(stopped.data_dir)) as again:
        with pytest.raises(ArchiveError, match=f"lacks events; the archive alone has the events up to {OLD}"):
            await again.log.at(3)
        with pytest.raises(ArchiveError):
            await all_events(again)
        assert (await again.log.at(OLD + 1)) is not None
    folder.with_name("elsewhere").rename(folder)
    first = next(iter(sorted(folder.rglob("*.parquet"))))
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    async with Session(settings_in(stopped.data_dir)) as again:
        with pytest.raises(ArchiveError, match="the archive's file was changed"):
            await again.log.at(3)


async def test_nothing_leaves_while_a_role_runs_or_what_the_archive_lacks(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        await record_history(upstream)
        with pytest.raises(LedgerError, match=r"stop every role .*: intake, decisions answers"):
            await retire(session, TODAY, (), nothing)
    await backdate(session)
    yesterday = TODAY - timedelta(days=1)
    for day, reason in ((yesterday, "no archived event"), (TODAY + timedelta(days=1), "keeps at least one event")):
        with pytest.raises(LedgerError, match=reason):
            await retire(session, day, (), nothing)
    (file,) = archive_of(session.data_dir).folder.rglob(f"day={TODAY}/*.parquet")
    file.unlink()
    with pytest.raises(LedgerError, match="the archive is not what was sealed"):
        await retire(session, TODAY, (), nothing)
    assert (await state_of(session))[0] == 1


async def test_old_events_leave_by_a_command_and_every_decision_is_made_again(
    stopped: Session, command: CommandLine
) -> None:
    data_dir = stopped.data_dir
    done = await asyncio.to_thread(
        command, "admin", "archive", "--retire-before", str(TODAY), "--json", data_dir=data_dir
    )
    assert (done.returncode, json.loads(done.stdout)["retired_until"]) == (0, OLD), done.stderr
    for words in (("audit", "redecide"), ("audit", "verify"), ("admin", "scrub"), ("report", "balances")):
        done = await asyncio.to_thread(command, *words, data_dir=data_dir)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    file = min(archive_of(data_dir).folder.rglob("*.parquet"))
    file.write_bytes(b"")
    done = await asyncio.to_thread(command, "admin", "scrub", data_dir=data_dir)
    assert done.returncode == 1
    assert f"the archive alone has the events up to {OLD}: bring back a copy" in done.stderr
    done = await asyncio.to_thread(command, "admin", "doctor", "--json", data_dir=data_dir)
    checks = {one["check"]: one for one in json.loads(done.stdout)["items"]}
    assert not checks["archive"]["ok"]
    assert f"it alone has the events up to {OLD}" in checks["archive"]["says"]
