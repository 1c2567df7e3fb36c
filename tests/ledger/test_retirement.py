"""Old events leave the stream by an operator's word: everything reads on through the archive, and proofs hold."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from app.runtime.archive import restore
from app.runtime.retirement import first_day_of, go_on, retire
from app.runtime.roles import running
from app.runtime.seal import verification
from app.runtime.session import Session
from app.runtime.sources import known_sources
from app.runtime.stream_setup import create_streams
from config import topology
from consumers.seal.archive_service import archive_of
from ledger.archive.stream_retirement import COPY, StreamRetirement, UnfinishedRetirementError
from ledger.errors import LedgerError, LocalFileError, UnavailableError
from ledger.store.log import Draft, Log
from ledger.store.streams import StreamRemadeError, js_api, verify_streams
from ledger.store.subscription import Follower, ReadCursor
from projections.engine.projector import rebuild
from projections.registry import MODELS
from tests.support.builders import event
from tests.support.environment import long_only
from tests.support.forked_cli import CommandLine, json_of
from tests.support.sealed_logs import all_events, settings_in
from tests.support.upstreams import upstream_of
from tests.support.view_rows import record_history, rows_of
from tests.support.waiting import count_inbox_messages, eventually

pytestmark = pytest.mark.integration
TODAY = datetime.now(UTC).date()
YESTERDAY, BEFORE = TODAY - timedelta(days=1), TODAY - timedelta(days=2)
OLD = 12
"""The number of events that were recorded before today."""
CHANGES = 7
"""The number of changes on the server until a retirement is complete."""


class InterruptError(BaseException):
    """The end of a command in the middle of its work, as by SIGKILL: none of its handlers runs."""


async def no_check(_retirement: object) -> None:
    """Accept every archive."""


def nothing(_done: int, _of: int) -> None:
    """Ignore progress."""


async def backdate(session: Session, days: Sequence[tuple[date, int]] = ((YESTERDAY, OLD),)) -> None:
    """Let the first events have been recorded on these days, so many on each; the others keep their day."""
    events = await all_events(session)
    begin = 0
    for day, number in days:
        for at in range(begin, begin + number):
            data = events[at].data
            for other in (TODAY, YESTERDAY):
                data = data.replace(str(other).encode(), str(day).encode())
            events[at] = events[at]._replace(data=data)
        begin += number
    operator = await session.connection("backdate", user="operator")
    await js_api(operator, f"STREAM.DELETE.{topology.LEDGER}")
    declared = next(one for one in topology.stream_configs() if one["name"] == topology.LEDGER)
    await js_api(operator, f"STREAM.CREATE.{topology.LEDGER}", declared)
    await (await Log.unstamped(operator, topology.LEDGER)).append([Draft(one.subject, one.data) for one in events])


@pytest.fixture(autouse=True)
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for messages on their way: nothing publishes beside these tests."""
    monkeypatch.setattr("ledger.archive.stream_retirement._SETTLED_SECONDS", 0.1)


@pytest.fixture
async def stopped(session: Session) -> Session:
    """Return a ledger with events of two days, on which no role runs any more."""
    async with upstream_of(session, history=True) as upstream:
        await record_history(upstream)
    await backdate(session)
    return session


@asynccontextmanager
async def opened(session: Session) -> AsyncIterator[Session]:
    """Open the same ledger once more, as a process that starts now."""
    async with Session(settings_in(session.data_dir)) as again:
        yield again


async def state_of(session: Session) -> tuple[int, int]:
    info = await js_api(session.client, f"STREAM.INFO.{topology.LEDGER}")
    return info["state"]["first_seq"], info["state"]["last_seq"]


async def rows_from_the_log(session: Session) -> dict[str, dict[str, list[str]]]:
    for name, make in MODELS.items():
        await rebuild(make(), session.views, await session.connection(name), session.log)
    return {name: rows_of(session.views, make()) for name, make in MODELS.items()}


async def answers(session: Session) -> tuple[Any, ...]:
    """Return the log's answers to each way of reading."""
    log, events = session.log, await all_events(session)
    subjects = sorted({event.subject for event in events})
    client = await session.connection("reader")
    followed = [Follower(client, log, "reader", ReadCursor(begin), gaps=True) for begin in (0, OLD - 1, OLD, OLD + 1)]
    facts = Follower(client, log, "reader", gaps=True, subject="ledger.fact.crm")
    end, newest = await log.last_position(), await log.last("ledger.fact.crm")
    assert newest is not None
    return (
        events,
        [await log.at(position) for position in range(end + 2)],
        [await log.last(subject) for subject in subjects],
        [await log.read_from_leader(subject) for subject in subjects],
        [await log.read_from_leader(subject, at) for subject in subjects for at in (0, OLD - 1, OLD, OLD + 1)],
        await log.last_of_each([*subjects, "ledger.none"]),
        [await log.last(f"{subject.rpartition('.')[0]}.*") for subject in subjects],
        [await log.last(subject) for subject in ("ledger.none", "ledger.budget.none.GBP.*", "ledger.gap", "ledger.>")],
        [await log.read_subject(subject) for subject in [*subjects, "ledger.gap", "ledger.fact.*", "ledger.*"]],
        [await log.read_subject(">", position) for position in range(end + 1)],
        [(await log.read_batch(">", position, 5))[0] for position in range(end + 1)],
        [[one async for batch in reader.batches(until=end) for one in batch] for reader in followed],
        [one async for batch in facts.batches(until=newest.position) for one in batch],
        await known_sources(session),
    )


async def test_reading_goes_on_through_the_archive(stopped: Session) -> None:
    before, rows, (_, end) = await answers(stopped), await rows_from_the_log(stopped), await state_of(stopped)
    assert await retire(stopped, TODAY, (), nothing) == OLD
    assert await state_of(stopped) == (OLD + 1, end)
    for _ in range(2):
        async with opened(stopped) as again:
            assert await answers(again) == before
            assert await rows_from_the_log(again) == rows
            found = await verification(again, [], (), progressed=nothing)
            assert (found["findings"], found["size"], found["gaps"]) == ([], end, [])
            await verify_streams(again.client, topology.stream_configs(1, OLD))
            assert await retire(again, TODAY, (), nothing) == OLD  # nothing is left to do
        shutil.rmtree(stopped.data_dir / "index")  # it is made again from the archive


@long_only
async def test_lost_positions_stay_lost(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        await record_history(upstream)
    await backdate(session)
    operator = await session.connection("damage", user="operator")
    config = (await js_api(operator, f"STREAM.INFO.{topology.LEDGER}"))["config"]
    await js_api(operator, f"STREAM.DELETE.{topology.LEDGER}")
    await js_api(operator, f"STREAM.CREATE.{topology.LEDGER}", config | {"deny_delete": False, "deny_purge": False})
    events = await all_events(session) or []
    assert not events
    lost = {3, OLD, OLD + 1}
    for position in range(1, 20):
        data = json.dumps(event(f"e-{position}", "interaction.opened", interaction_id=f"I-{position}"))
        stamp = f',"recordedtime":"{YESTERDAY if position <= OLD else TODAY}T00:00:00.000000Z"}}'
        await (await Log.unstamped(operator, topology.LEDGER)).append(
            [Draft("ledger.fact.crm", data[:-1].encode() + stamp.encode())]
        )
    for position in lost:
        await js_api(operator, f"STREAM.MSG.DELETE.{topology.LEDGER}", {"seq": position})
    before = await answers(session)
    assert await retire(session, TODAY, (), nothing) == OLD + 1  # the marker of a lost event has the time before it
    async with Session(settings_in(session.data_dir), examines=True) as again:
        assert await answers(again) == before
        assert {one.position for one in await all_events(again)}.isdisjoint(lost)


async def test_decisions_go_on_with_budgets_whose_events_have_left(session: Session) -> None:
    stopped = session
    async with upstream_of(session, history=True) as upstream:
        await record_history(upstream)
        end = await upstream.record(event("last", "interaction.opened", interaction_id="I-2"))
    assert await session.log.last_position() == end
    await backdate(stopped, [(YESTERDAY, end - 1)])
    balances = (await rows_from_the_log(stopped))["budget_balances"]
    assert await retire(stopped, TODAY, (), nothing) == end - 1
    async with opened(stopped) as again:
        assert (await rows_from_the_log(again))["budget_balances"] == balances
    customer = {"customer_id": "C-1", "interaction_id": "I-1"}
    opening = event("i-1", "interaction.opened", **customer, agent_id="A-1")
    known = set[str]()
    for round_ in range(2):
        async with opened(stopped) as again:
            async with upstream_of(again, history=True) as upstream:
                first = await upstream.action("r-1", "5.00", **customer, time="2026-01-31T12:00:00Z")
                known.add(first["action_id"])
                answer = await upstream.action(f"r-1{round_}", "1.00", time="2026-02-12T12:00:00Z")
                assert answer["outcome"] == "taken", answer
                # 7.00, 2.00 reported, and 1.00 each round: a budget that was opened again would know of 1.00 alone
                assert answer["budget"]["spent"]["amount"] == f"{10 + round_}.00"
                twice = await upstream.action(f"r-1{round_}", "1.00", time="2026-02-12T12:00:00Z")
                assert twice["action_id"] == answer["action_id"]
                assert await upstream.record(opening) < end
            found = await verification(again, [], (), progressed=nothing)
            assert found["findings"] == []
        shutil.rmtree(stopped.data_dir / "index")  # the next processes read everything again
    assert len(known) == 1


async def interrupted(monkeypatch: pytest.MonkeyPatch, changes: int, work: Any) -> None:
    """Do this work until it has made so many changes on the server."""
    change, made = StreamRetirement._change, 0

    async def counted(self: StreamRetirement, *given: Any) -> None:
        nonlocal made
        if made == changes:
            raise InterruptError
        made += 1
        await change(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(StreamRetirement, "_change", counted)
        with pytest.raises(InterruptError):
            await work()


async def test_an_interrupted_retirement_goes_on_and_nothing_else_works_meanwhile(
    stopped: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, (_, end) = await answers(stopped), await state_of(stopped)
    settings = settings_in(stopped.data_dir)

    async def resume() -> None:
        async with Session(settings, retires=nothing) as session:
            assert await retire(session, TODAY, (), nothing) == OLD

    await interrupted(monkeypatch, 1, lambda: retire(stopped, TODAY, (), nothing))
    for number in range(2, CHANGES + 1):
        every_kind: list[dict[str, Any]] = [{}, {"reads_only": True}, {"examines": True}, {"creates": True}]
        for options in every_kind:
            with pytest.raises(
                UnfinishedRetirementError, match=f"up to position {OLD} are being retired.*run .* again"
            ):
                async with Session(settings, **options):
                    pass
        with pytest.raises(LedgerError):  # a process that had looked before
            await create_streams(stopped.client, 1)
        with pytest.raises(nats.errors.NoRespondersError):  # an earlier version waits, and rejects no fact
            await stopped.client.request("ledger.fact.crm", b"{}", timeout=2)
        with pytest.raises((UnavailableError, StreamRemadeError)):  # other errors would reject a fact for good
            await stopped.log.append([Draft("ledger.fact.crm", b'{"n":1}', 0)], patience_seconds=0.2)
        if number < CHANGES:
            await interrupted(monkeypatch, 1, resume)
    await resume()
    assert await state_of(stopped) == (OLD + 1, end)
    async with opened(stopped) as again:
        assert await answers(again) == before
        names = (await js_api(again.client, "STREAM.NAMES"))["streams"]
        assert topology.LEDGER + COPY not in names


@long_only
async def test_a_retirement_that_fails_is_taken_back_while_every_event_is_there(
    stopped: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backdate(stopped, [(BEFORE, 5), (YESTERDAY, OLD - 5)])
    before = await answers(stopped)
    change = StreamRetirement._change
    await retire(stopped, YESTERDAY, (), nothing)

    async def refused(self: StreamRetirement, request: str, stream: str, *given: Any) -> None:
        if (request, stream) == ("STREAM.CREATE", topology.LEDGER + COPY):
            raise LedgerError("no space")
        await change(self, request, stream, *given)

    async with opened(stopped) as running_on, opened(stopped) as command:
        with monkeypatch.context() as patch:
            patch.setattr(StreamRetirement, "_change", refused)
            patch.setattr(StreamRetirement, "_settle", lambda _self: running_on.log.require_same_stream())
            with pytest.raises(LedgerError, match="nothing was retired, and LEDGER takes events again: no space"):
                await retire(command, TODAY, (), nothing)
        assert await answers(running_on) == before
        await verify_streams(running_on.client, topology.stream_configs(1, 5))
        assert await running_on.log.append([Draft("ledger.fact.crm", before[0][-1].data)]) == len(before[0]) + 1


async def test_a_process_from_before_can_neither_write_nor_read_what_is_gone(stopped: Session) -> None:
    events = await all_events(stopped)
    budget = next(one for one in events if one.subject.startswith("ledger.budget.") and one.position <= OLD)
    async with opened(stopped) as unaware:
        client = await unaware.connection("reader")
        live = Follower(client, unaware.log, "live", ReadCursor(2), gaps=True)
        reading = live.batches()
        assert (await anext(reading))[0].position == 3
        await retire(stopped, TODAY, (), nothing)
        _, end = await state_of(stopped)
        for gaps in (True, False):
            with pytest.raises(StreamRemadeError):
                await anext(Follower(client, unaware.log, "late", ReadCursor(2), gaps=gaps).batches())
        for expect in (budget.position, 0, None):  # it had read the budget, had missed it, does not care
            with pytest.raises(StreamRemadeError, match=f"up to position {OLD} were retired.*start it again"):
                await unaware.log.append([Draft(budget.subject, budget.data, expect)])
        results: list[object] = []
        unaware.log.append_nowait([Draft("ledger.budget.new.GBP.2026-11", budget.data, 0)], results.append)
        await eventually(lambda: asyncio.sleep(0, results))
        assert isinstance(results[0], StreamRemadeError)
        for read in (unaware.log.at(3), unaware.log.last("ledger.none"), unaware.log.read_subject(budget.subject)):
            with pytest.raises(StreamRemadeError):
                await read
        with pytest.raises(StreamRemadeError):
            await anext(reading)
        with pytest.raises(StreamRemadeError):
            await unaware.failed
        assert (await state_of(stopped))[1] == end


async def none_answers(_session: object) -> list[str]:
    """Let the question pass whether roles run: those that are suspended do not work."""
    return []


@long_only
@pytest.mark.parametrize("fenced", [True, False])
async def test_roles_that_run_meanwhile_record_nothing_and_reject_nothing(
    stopped: Session, monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    monkeypatch.setattr("app.runtime.retirement.answering_roles", none_answers)
    sequence = (await stopped.rejected.last_position()), (await state_of(stopped))[1]
    async with (
        opened(stopped) as unaware,
        opened(stopped) as second,
        running(unaware, ["intake", "decisions"], history=True) as services,
    ):
        client = await unaware.upstream("upstream")
        again = event("i-1", "interaction.opened", interaction_id="I-1", customer_id="C-1", agent_id="A-1")
        facts = [event("n-1", "interaction.opened", interaction_id="I-7"), again | {"extra": "e"}]
        if fenced:
            await interrupted(monkeypatch, 4, lambda: retire(second, TODAY, (), nothing))
        else:
            await retire(second, TODAY, (), nothing)
        for fact in facts:
            await client.request("resolution.inbox.crm", json.dumps(fact).encode(), timeout=5)
        if not fenced:
            ended, _ = await asyncio.wait(
                [unaware.failed, *(one.failed for one in services)], timeout=20, return_when="FIRST_COMPLETED"
            )
            assert isinstance(next(iter(ended)).exception(), StreamRemadeError)
        await asyncio.sleep(1)
    if fenced:
        async with Session(settings_in(stopped.data_dir), retires=nothing) as session:
            assert session.log.retired.until == OLD
    async with opened(stopped) as session:
        assert (await session.rejected.last_position(), await session.log.last_position()) == sequence
        async with upstream_of(session, history=True):
            await eventually(lambda: count_inbox_messages(session), lambda count: count == 0)
        recorded = (await session.log.read_subject("ledger.fact.crm"))[-1]
        assert json.loads(recorded.data)["id"] == "n-1"


@long_only
async def test_an_archive_that_goes_away_is_waited_for(stopped: Session) -> None:
    await retire(stopped, TODAY, (), nothing)
    archive = archive_of(stopped.data_dir).folder
    same = event("i-1", "interaction.opened", interaction_id="I-1", customer_id="C-1", agent_id="A-1")
    async with opened(stopped) as session, upstream_of(session, history=True) as upstream:
        archive.rename(archive.with_name("elsewhere"))
        rejected = await session.rejected.last_position()
        await upstream.publish(
            json.dumps(same, indent=1).encode().replace(b'"time"', b'"time" '), "resolution.inbox.crm"
        )
        await upstream.publish(
            event("fact.corrected", "fact.corrected", source_of="crm", id_of="b-0", data=None, reason="x")
        )
        await asyncio.sleep(1)
        assert await session.rejected.last_position() == rejected
        archive.with_name("elsewhere").rename(archive)
        await eventually(lambda: count_inbox_messages(session), lambda count: count == 0)
        assert await session.rejected.last_position() == rejected


@long_only
async def test_a_process_that_only_reads_notices_within_half_a_minute(stopped: Session) -> None:
    async with opened(stopped) as unaware:
        now = unaware.log.server_time._steady()
        await retire(stopped, TODAY, (), nothing)
        unaware.log.server_time._steady = lambda: now + 31
        with pytest.raises(StreamRemadeError):
            await unaware.log.at(3)


@long_only
async def test_no_message_comes_back_with_a_server_that_was_killed(stopped: Session) -> None:
    before, (_, end) = await answers(stopped), await state_of(stopped)
    await retire(stopped, TODAY, (), nothing)
    server = stopped.embedded_server
    assert server is not None
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: asyncio.to_thread(server.pid), lambda now: now not in {None, pid})
    async with opened(stopped) as again:
        assert await state_of(again) == (OLD + 1, end)
        assert await answers(again) == before
        assert await again.log.append([Draft("ledger.fact.crm", before[0][-1].data)]) == end + 1


@long_only
async def test_what_has_left_is_missed_by_name_where_the_archive_lacks_it(stopped: Session) -> None:
    await backdate(stopped, [(BEFORE, 5), (YESTERDAY, OLD - 5)])
    await retire(stopped, TODAY, (), nothing)
    folder, index = archive_of(stopped.data_dir).folder, stopped.data_dir / "index"
    need = f"the archive alone has the events up to position {OLD}: bring a copy of the whole folder {folder}"
    elsewhere = folder.with_name("elsewhere")
    folder.rename(elsewhere)
    async with opened(stopped) as again:
        for read in (again.log.at(3), again.log.last("ledger.none"), all_events(again)):
            with pytest.raises(LocalFileError, match=need):
                await read
        assert (await again.log.at(OLD + 1)) is not None
        with pytest.raises(LocalFileError, match=need):
            async with running(again, ["decisions"]):
                pass
    damages: dict[str, Callable[[Path, str], object]] = {
        "changed": lambda file, _lines: file.write_bytes(file.read_bytes()[:-1] + b"?"),
        "lacks a file": lambda file, _lines: file.unlink(),
        "lacks events": lambda file, lines: (file.parents[1] / "manifest.jsonl").write_text(lines.split("\n", 1)[1]),
    }
    for reason, damage in damages.items():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(elsewhere, folder)
        shutil.rmtree(index, ignore_errors=True)
        damage(min(folder.rglob("*.parquet")), (folder / "manifest.jsonl").read_text())
        async with opened(stopped) as again:
            with pytest.raises(LocalFileError, match=f"{reason}.*{need}"):
                async with running(again, ["decisions"]):
                    pass


async def test_a_damaged_index_is_made_again(stopped: Session) -> None:
    newest = {one.subject: one for one in await all_events(stopped)}
    old = next(one for one in newest.values() if one.position <= OLD)
    await retire(stopped, TODAY, (), nothing)
    (index,) = (stopped.data_dir / "index").glob("archived-subjects-*.sqlite")
    subject = old.subject.encode()
    assert index.read_bytes().count(subject)
    index.write_bytes(index.read_bytes().replace(subject, subject[:-1] + b"?"))
    async with opened(stopped) as again:
        assert await again.log.last(old.subject) == old
    assert index.read_bytes().count(subject)


@long_only
async def test_the_archive_of_another_log_is_noticed(stopped: Session, tmp_path: Path) -> None:
    await retire(stopped, TODAY, (), nothing)
    async with Session(settings_in(tmp_path / "other")) as other:
        async with upstream_of(other, history=True) as upstream:
            await record_history(upstream)
            await upstream.publish(event("more", "interaction.opened", interaction_id="I-9"))
        await backdate(other)
        await retire(other, TODAY, (), nothing)
    mine = archive_of(stopped.data_dir).folder
    shutil.rmtree(mine)
    shutil.copytree(archive_of(tmp_path / "other").folder, mine)
    last = (await js_api(stopped.client, f"STREAM.INFO.{topology.LEDGER}"))["config"]["metadata"]
    async with opened(stopped) as again:
        with pytest.raises(LocalFileError, match="it is the archive of another log"):
            await again.log.at(3)
    assert last


@long_only
async def test_nothing_leaves_while_something_runs_or_the_archive_lacks_it(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        await record_history(upstream)
        with pytest.raises(LedgerError, match=r"stop every role .*: intake, decisions answers"):
            await retire(session, TODAY, (), nothing)
    await backdate(session)
    assert await retire(session, YESTERDAY, (), nothing) == 0
    with pytest.raises(LedgerError, match="has not begun"):
        await retire(session, TODAY + timedelta(days=1), (), nothing)
    consumer: dict[str, Any] = {"durable_name": "theirs", "ack_policy": "explicit"}
    await js_api(
        session.client,
        f"CONSUMER.DURABLE.CREATE.{topology.LEDGER}.theirs",
        {"stream_name": topology.LEDGER, "config": consumer},
    )
    with pytest.raises(LedgerError, match="consumer theirs would end with LEDGER"):
        await retire(session, TODAY, (), nothing)
    await js_api(session.client, f"CONSUMER.DELETE.{topology.LEDGER}.theirs")
    await js_api(session.client, "STREAM.CREATE.THEIRS", {"name": "THEIRS", "mirror": {"name": topology.LEDGER}})
    with pytest.raises(LedgerError, match="stream THEIRS would end with LEDGER"):
        await retire(session, TODAY, (), nothing)
    (file,) = archive_of(session.data_dir).folder.rglob(f"day={TODAY}/*.parquet")
    file.unlink()
    with pytest.raises(LedgerError, match="the archive is not what was sealed"):
        await retire(session, TODAY, (), nothing)
    assert (await state_of(session))[0] == 1


@long_only
async def test_everything_may_not_leave(stopped: Session) -> None:
    await backdate(stopped, [(YESTERDAY, await stopped.log.last_position())])
    with pytest.raises(LedgerError, match="at least one event stays"):
        await retire(stopped, TODAY, (), nothing)


@long_only
async def test_a_command_that_slept_deletes_nothing_of_the_one_that_went_on(
    stopped: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await answers(stopped)
    delete, slept = StreamRetirement._delete, False

    async def sleeps(self: StreamRetirement, stream: str, seen: Any) -> None:
        nonlocal slept
        if stream == topology.LEDGER and not slept:
            slept = True
            with pytest.raises(LedgerError, match="another command retires events of this ledger"):
                await go_on(stopped, nothing)
            await StreamRetirement(self._client, topology.LEDGER, self._subject, self._require_archive, nothing).go_on()
        await delete(self, stream, seen)

    monkeypatch.setattr(StreamRetirement, "_delete", sleeps)
    with pytest.raises(LedgerError, match="LEDGER was changed by another command"):
        await retire(stopped, TODAY, (), nothing)
    assert slept
    async with opened(stopped) as again:
        assert await answers(again) == before


@long_only
async def test_a_second_command_begins_nothing(stopped: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = await stopped.connection("second", user="operator")
    second = StreamRetirement(operator, topology.LEDGER, "ledger.retiring", no_check, nothing)
    await interrupted(monkeypatch, 1, lambda: retire(stopped, TODAY, (), nothing))
    with pytest.raises(LedgerError, match="another command retires events of LEDGER"):
        await second.begin(3, "", {})


@long_only
async def test_events_leave_again_and_the_archive_fills_an_empty_ledger(session: Session, tmp_path: Path) -> None:
    async with upstream_of(session, history=True) as upstream:
        await record_history(upstream)
    await backdate(session, [(BEFORE, 5), (YESTERDAY, OLD - 5)])
    before = await answers(session)
    assert await retire(session, YESTERDAY, (), nothing) == 5
    async with opened(session) as again:
        assert await answers(again) == before
        assert await retire(again, TODAY, (), nothing) == OLD
        with pytest.raises(StreamRemadeError):
            await again.log.append([Draft("ledger.fact.crm", b"{}")])
        assert again.log.earlier is not None
        with pytest.raises(LocalFileError):  # other errors would reject a fact for good
            await again.log.earlier.last("ledger.none")
        assert len([*(session.data_dir / "index").glob("archived-subjects-*")]) == 2
    async with opened(session) as again:
        assert await answers(again) == before
        assert (await state_of(again))[0] == OLD + 1
    new = tmp_path / "new"
    shutil.copytree(session.data_dir / "seal", new / "seal")
    async with Session(settings_in(new)) as filled:
        await restore(filled, archive_of(session.data_dir).folder, (), nothing)
        assert await all_events(filled) == before[0]
        assert await state_of(filled) == (1, len(before[0]))


def test_a_period_begins_on_its_first_day() -> None:
    assert [str(first_day_of(one)) for one in ("2026-09", "2026-09-02", "2026-W36", "2026-Q3")] == [
        "2026-09-01",
        "2026-09-02",
        "2026-08-31",
        "2026-07-01",
    ]


@long_only
async def test_old_events_leave_by_a_command_and_every_decision_is_made_again(
    stopped: Session, command: CommandLine
) -> None:
    data_dir = stopped.data_dir
    taken = next(one for one in await all_events(stopped) if b"resolution.action.taken.v1" in one.data)
    action = json.loads(taken.data)["data"]["action_id"]

    async def run(*words: str) -> Any:
        return await asyncio.to_thread(command, *words, "--json", data_dir=data_dir)

    asked = (
        ("audit", "redecide"),
        ("audit", "redecide", action),
        ("audit", "explain", action),
        ("audit", "verify"),
        ("admin", "scrub"),
        ("report", "balances"),
        ("report", "loyalty"),
        ("audit", "trail", "--customer", "C-1"),
        ("audit", "replay", "--to", str(OLD + 2)),
        ("report", "balances", "--as-of", str(OLD - 2)),
    )
    await run("admin", "archive")
    before = [(done.returncode, done.stdout) for done in [await run(*words) for words in asked]]
    assert [status for status, _ in before] == [0] * len(asked), before
    assert json_of(await run("admin", "archive", "--retire-before", str(TODAY)))["retired_until"] == OLD
    for words, expected in zip(asked, before, strict=True):
        done = await run(*words)
        assert (done.returncode, done.stdout) == expected, (words, done.stderr)
    proof = await asyncio.to_thread(command, "audit", "prove", "3", data_dir=data_dir)
    (data_dir / "proof").write_text(proof.stdout)
    assert (await run("audit", "verify-proof", str(data_dir / "proof"))).returncode == 0
    checks = {one["check"]: one for one in json.loads((await run("admin", "doctor")).stdout)["items"]}
    assert checks["archive"]["ok"]
    assert checks["streams"]["ok"]
    file = min(archive_of(data_dir).folder.rglob("*.parquet"))
    file.write_bytes(b"")
    done = await run("admin", "scrub")
    assert done.returncode == 1
    assert f"the archive alone has the events up to position {OLD}: bring a copy" in done.stderr + done.stdout
    checks = {one["check"]: one for one in json.loads((await run("admin", "doctor")).stdout)["items"]}
    assert not checks["archive"]["ok"]
    assert f"it alone has the events up to {OLD}" in checks["archive"]["says"]
    done = await run("admin", "archive", "--retire-before", "yesterday")
    assert done.returncode == 2
