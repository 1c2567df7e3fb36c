"""A host's clock that runs ahead: nothing is recorded by it, and events it once recorded block no decision."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.health.checks import checks_of
from app.runtime.session import Session
from consumers.decisions.pipeline import DecisionPipeline
from consumers.decisions.state.follower import DecisionState
from ledger.errors import ClockError, UnavailableError
from ledger.store.event_id_index import EventIdIndex
from ledger.store.log import Draft, Log
from ledger.store.server_time import ServerTime, duration_text
from projections.engine.projector import rebuild
from projections.engine.storage import reading
from projections.views.balances import Balances, read_balances
from tests.support.builders import event, gbp
from tests.support.clocks import HostClock, SteadyClock, unchecked_log
from tests.support.documents import Document
from tests.support.upstreams import upstream_of

AHEAD = timedelta(days=40)


def draft(number: int, expect: int | None = None) -> Draft:
    return Draft("ledger.fact.clock", b'{"n":%d}' % number, expect)


async def test_nothing_is_recorded_while_the_hosts_clock_is_ahead(session: Session) -> None:
    host = HostClock()
    log = await Log.open(session.client, "LEDGER", host)
    assert await log.append([draft(1)]) == 1
    host.wrong_by = AHEAD
    with pytest.raises(ClockError, match=r"40 days ahead.*server's time stamps"):
        await log.append([draft(2)])
    posted: list[Any] = []
    log.append_nowait([draft(3)], posted.append)
    with pytest.raises(ClockError):
        await log.check_clock()
    assert await log.last_position() == 1
    assert isinstance(posted[0], UnavailableError)
    host.wrong_by = timedelta()
    assert await log.append([draft(4)]) == 2
    last = await log.last(">")
    assert last is not None
    assert datetime.now(UTC).isoformat()[:10].encode() in last.data


async def test_a_host_whose_clock_is_ahead_from_its_start_records_nothing(session: Session) -> None:
    host = HostClock()
    host.wrong_by = timedelta(seconds=75)
    log = await Log.open(session.client, "LEDGER", host)
    with pytest.raises(ClockError, match="1 min 15 s ahead"):
        await log.append([draft(1)])
    host.wrong_by = timedelta(seconds=45)  # less than a minute is no reason
    assert await log.append([draft(1)]) == 1
    host.wrong_by = -AHEAD  # behind: a recorded time never decreases, and nothing has to wait
    assert await log.append([draft(2)]) == 2


def slept(log: Log, seconds: float) -> None:
    """Let host and server go on for so long, but not the monotonic clock."""
    assert log.server_time._server_at is not None
    log.server_time._server_at -= seconds


async def test_a_paused_machine_records_as_soon_as_it_continues(session: Session) -> None:
    log = await Log.open(session.client, "LEDGER", HostClock())
    slept(log, 3600)
    with pytest.raises(ClockError):
        log.server_time.check(datetime.now(UTC))
    assert await log.append([draft(1)]) == 1
    log.server_time.check(datetime.now(UTC))


async def test_a_leap_of_host_and_server_together_is_not_trusted_before_a_restart(session: Session) -> None:
    log = await Log.open(session.client, "LEDGER", HostClock())
    slept(log, 40 * 86_400)
    for _ in range(2):
        with pytest.raises(ClockError, match=r"40 days ahead: it leapt to .* together with the server's"):
            await log.append([draft(1)])
    slept(log, -40 * 86_400)  # both are set back
    assert await log.append([draft(1)]) == 1


async def test_a_monotonic_clock_that_leaps_with_the_host_is_not_trusted(session: Session) -> None:
    steady, host = SteadyClock(), HostClock()
    log = await Log.open(session.client, "LEDGER", host)
    log.server_time = ServerTime(session.client, "LEDGER", host, steady)
    assert await log.append([draft(1)]) == 1
    host.wrong_by, steady.seconds = AHEAD, steady.seconds + AHEAD.total_seconds()
    with pytest.raises(ClockError, match="40 days ahead"):
        await log.append([draft(2)])
    host.wrong_by, steady.seconds = timedelta(), steady.seconds - AHEAD.total_seconds()
    assert await log.append([draft(2)]) == 2


async def ledger_of(session: Session, clock: HostClock) -> None:
    """Let a session record by another clock."""
    session.log = await Log.open(session.client, "LEDGER", clock)
    session.rejected = await Log.open(session.client, "REJECTED", clock)


async def test_facts_wait_and_decisions_are_unavailable_while_the_hosts_clock_is_ahead(session: Session) -> None:
    host = HostClock()
    await ledger_of(session, host)
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        before = await session.log.last_position()
        host.wrong_by = AHEAD
        open_generation = event("i-1", "interaction.opened", interaction_id="I-1")
        await upstream.publish(open_generation)
        await upstream.publish(b"no event", "resolution.inbox.crm")
        answer = await upstream.action("r-1")
        assert answer["error"]["code"] == "unavailable"
        assert "the host's clock is 40 days ahead" in answer["error"]["message"]
        assert await session.log.last_position() == before
        assert await session.rejected.last_position() == 0
        found = {check.check: check for check in await checks_of(session)}
        assert not found["clock"].ok
        assert "40 days ahead" in found["clock"].says
        host.wrong_by = timedelta()
        assert (await upstream.receipt("i-1"))["position"] > before
        assert (await upstream.action("r-1"))["outcome"] == "taken"
        found = {check.check: check for check in await checks_of(session)}
        assert found["clock"].ok
        assert found["recorded times"].ok
        host.wrong_by = -AHEAD
        found = {check.check: check for check in await checks_of(session)}
        assert "40 days behind" in found["clock"].says


async def decided_at(session: Session, moment: datetime, request_id: str, **fields: Any) -> Document:
    """Return the answer of a decider whose clock shows this moment."""
    client = await session.connection("past")
    log = await unchecked_log(client, moment)
    index = EventIdIndex(session.data_dir / "index" / f"{request_id}.sqlite")
    directory, reader = DecisionState(index), await session.connection("directory")
    await directory.follow(reader, log, until=await log.last_position())
    decider = DecisionPipeline(log, directory, clock=lambda: moment)
    following, running = asyncio.create_task(directory.follow(reader, log)), asyncio.create_task(decider.run())
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    body = {
        "request_id": request_id,
        "agent_id": "A-1",
        "kind": "refund",
        "reason": "late",
        "amount": gbp("5.00"),
    } | fields
    decider.submit("crm", "action", json.dumps(body).encode(), answer.set_result)
    try:
        return json.loads(await asyncio.wait_for(answer, 20))  # type: ignore[no-any-return]
    finally:
        for task in (following, running):
            task.cancel()
        await asyncio.gather(following, running, return_exceptions=True)
        await directory.close()


async def test_a_period_opened_ahead_of_time_does_not_block_the_present_one(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
    now = datetime.now(UTC)
    ahead = now + AHEAD
    first = await decided_at(session, now, "r-1", amount=gbp("20.00"))
    held = await decided_at(session, ahead, "r-2", amount=gbp("30.00"), hold=True)
    assert (first["budget"]["period"], held["budget"]["period"]) == (f"{now:%Y-%m}", f"{ahead:%Y-%m}")
    back = await decided_at(session, now, "r-3")  # the present period again: what was left of it, and what is held
    assert back["outcome"] == "taken"
    assert back["budget"] == first["budget"] | {
        "spent": gbp("25.00"),
        "reserved": gbp("30.00"),
        "granted": gbp("230.00"),
        "remaining": gbp("175.00"),
    }
    assert (await decided_at(session, now, "r-2", amount=gbp("30.00"), hold=True))["action_id"] == held["action_id"]
    later = await decided_at(session, ahead, "r-4")  # its time has come
    assert later["outcome"] == "taken"
    assert later["budget"]["period"] == f"{ahead:%Y-%m}"
    assert later["budget"]["spent"] == gbp("5.00")
    found = {check.check: check for check in await checks_of(session)}
    assert not found["recorded times"].ok
    assert "were recorded by a clock that ran ahead" in found["recorded times"].says
    progress = await rebuild(Balances(), session.views, await session.connection("views"), session.log)
    assert progress.anchor.position == await session.log.last_position()
    with reading(session.views, Balances(), 1) as connection:
        shown = {one["period"]: one for one in read_balances(connection, holder="agent:A-1")}
    assert shown[f"{ahead:%Y-%m}"]["remaining"] == later["budget"]["remaining"]
    assert shown[f"{ahead:%Y-%m}"]["spent"] == later["budget"]["spent"]
    assert shown[f"{now:%Y-%m}"]["spent"] == gbp("25.00")
    assert not shown[f"{ahead:%Y-%m}"]["closed"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40 * 86_400, "40 days"), (90_000, "1 d 1 h"), (3_700, "1 h 1 min"), (-75, "1 min 15 s"), (9.6, "10 s")],
)
def test_a_duration_is_written_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
