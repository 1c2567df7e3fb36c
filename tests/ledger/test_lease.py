"""Leases: of several processes one works; another takes over from one that dies, hangs, or gives up."""

import asyncio
import json
import os
import random
import time
from typing import cast

import pytest

from app.runtime.session import Session
from ledger import background_service
from ledger.errors import LocalFileError, UnavailableError
from ledger.store import lease
from ledger.store.lease import Lease
from ledger.store.log import Draft, Log
from tests.support.waiting import eventually


async def begun(session: Session, task: str = "test") -> Lease:
    one = Lease(session.client, task)
    await one.start()
    return one


async def die(one: Lease) -> None:
    """End a lease's work as SIGKILL does: nothing is given up."""
    await one.end_tasks()


async def holds(one: Lease, seconds: float = 20) -> float:
    """Wait until it is a process's turn; return the seconds."""
    begun_at = time.monotonic()

    async def is_ours() -> bool:
        return one.is_ours

    await eventually(is_ours, timeout_seconds=seconds, every_seconds=0.005)
    return time.monotonic() - begun_at


async def test_the_first_works_and_the_others_stand_by(session: Session) -> None:
    leases = [await begun(session) for _ in range(3)]
    other = await begun(session, "another-task")
    await asyncio.sleep(2 * lease._SILENT_SECONDS)
    assert [one.is_ours for one in (*leases, other)] == [True, False, False, True]
    for one in (*leases, other):
        await one.stop()


async def test_a_lease_that_is_given_up_is_taken_at_once(session: Session) -> None:
    first, second = await begun(session), await begun(session)
    await first.stop()
    assert await holds(second) < lease._SILENT_SECONDS / 2
    third = await begun(session)
    assert not third.is_ours
    await third.stop()
    assert second.is_ours
    await second.stop()
    assert (await begun(session)).is_ours


async def test_another_takes_over_from_one_that_dies(session: Session) -> None:
    first, second, third = [await begun(session) for _ in range(3)]
    await die(first)
    await asyncio.wait([asyncio.create_task(holds(one)) for one in (second, third)], return_when="FIRST_COMPLETED")
    await asyncio.sleep(2 * lease._SILENT_SECONDS)
    assert second.is_ours != third.is_ours
    first._writes += 1  # it goes on after it was suspended, and learns that it has lost
    await first._turn()
    assert not first.is_ours
    for one in (second, third):
        await one.stop()


async def test_a_process_that_starts_after_a_crash_works_before_its_start_ends(session: Session) -> None:
    await die(await begun(session))
    again = await begun(session)
    assert again.is_ours
    await again.stop()


async def test_a_standby_does_not_count_the_time_in_which_it_was_suspended(session: Session) -> None:
    first, second = await begun(session), await begun(session)
    await die(second)
    await asyncio.sleep(2 * lease._SILENT_SECONDS)
    await second._turn()
    assert (first.is_ours, second.is_ours) == (True, False)
    await first.stop()


class Away:
    """A log whose server gives no answer."""

    async def read_from_leader(self, *_: object) -> None:
        raise UnavailableError("no answer")

    append = read_from_leader


async def test_without_a_server_nothing_changes_and_the_holder_goes_first(session: Session) -> None:
    """Nobody counts the time of an outage as another's silence."""
    first, second = await begun(session), await begun(session)
    kept = first._log, second._log
    away = cast("Log", Away())
    await second._turn()  # it knows the newest write
    first._log = second._log = away
    await asyncio.sleep(2 * lease._SILENT_SECONDS)
    assert (first.is_ours, second.is_ours) == (True, False)
    first._log, second._log = kept
    await asyncio.sleep(2 * lease._SILENT_SECONDS)
    assert (first.is_ours, second.is_ours) == (True, False)
    for one in (first, second):
        await one.stop()


async def test_what_others_write_on_the_subject_harms_nobody(session: Session) -> None:
    first, second = await begun(session), await begun(session)
    for body in (b"", b"\xff", b"[", b"{}" * 1000, b'{"holder": null}', b'{"holder": "x/1/y"}'):
        await session.client.publish(first._subject, body)
        await session.client.flush()
        await asyncio.sleep(0.3)
    await eventually(lambda: asyncio.sleep(0, first.is_ours or second.is_ours))
    await asyncio.sleep(lease._SILENT_SECONDS)
    assert first.is_ours != second.is_ours
    for one in (first, second):
        await one.stop()


async def test_each_write_follows_the_one_before_whoever_dies(session: Session) -> None:
    """Six processes begin, die and give up at random; the stream shows one holder after another, each with a run."""
    chance = random.Random(11)
    log = await Log.unstamped(session.client, lease.STREAM)
    written: list[str] = []
    positions: list[int] = []

    async def watch() -> None:
        while True:
            newest = await log.read_from_leader("$KV.ledger-leases.test")
            if newest is not None and newest.data and newest.position not in positions:
                positions.append(newest.position)
                written.append(json.loads(newest.data)["holder"])
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    leases = [await begun(session) for _ in range(3)]
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0, 2))
        one = leases.pop(chance.randrange(len(leases)))
        await (die(one) if chance.random() < 0.5 else one.stop())
        leases.append(await begun(session))
    await asyncio.sleep(2 * lease._SILENT_SECONDS)
    assert sum(one.is_ours for one in leases) == 1
    watching.cancel()
    runs = [name for number, name in enumerate(written) if number == 0 or written[number - 1] != name]
    assert len(runs) == len(set(runs)) > 1, runs  # nobody comes back after another has worked
    for one in leases:
        await one.stop()


async def test_a_write_that_was_stored_without_an_answer_is_no_loss(session: Session) -> None:
    first = await begun(session)
    data = json.dumps({"holder": first._name, "writes": first._writes + 1}).encode()
    await first._log.append([Draft(first._subject, data, first._position)])  # stored; the answer was lost
    await first._turn()
    assert first.is_ours
    await first.stop()


async def test_an_own_write_whose_answer_came_too_late_is_no_loss(session: Session) -> None:
    """The next renewal differs from that write, and expects the one before it."""
    first, second = await begun(session), await begun(session)
    await first.end_tasks()
    position = first._position
    await first._write()
    first._position = position
    await first._turn()
    assert first.is_ours
    await second._turn()
    assert not second.is_ours
    for one in (second, first):
        await one.stop()


async def test_a_holder_works_until_a_standby_has_begun(session: Session) -> None:
    first, second = await begun(session), await begun(session)
    await asyncio.sleep(2 * lease._LOOK_SECONDS)
    handing = asyncio.create_task(first.hand_over())
    seconds = await holds(second)
    assert seconds < lease._SILENT_SECONDS / 2
    await asyncio.sleep(0.5)
    assert not handing.done()  # the standby reads the log to its end, for example
    second.confirm()
    await asyncio.wait_for(handing, 0.2)
    await first.stop()
    await asyncio.sleep(lease._SILENT_SECONDS)
    assert second.is_ours
    begun_at = time.monotonic()
    await second.hand_over()  # there is no standby any more: nothing to wait for
    assert time.monotonic() - begun_at < lease._LOOK_SECONDS
    await second.stop()


async def test_a_handover_ends_where_the_standby_never_says_that_it_has_begun(session: Session) -> None:
    first, second = await begun(session), await begun(session)
    await asyncio.sleep(2 * lease._LOOK_SECONDS)
    await asyncio.wait_for(first.hand_over(), 2 * lease._PATIENCE_SECONDS + 1)
    assert (first.is_ours, second.is_ours) == (False, True)
    for one in (first, second):
        await one.stop()


async def test_a_holder_whose_work_fails_leaves_it_to_a_standby(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes it back only after a while, even if the standby ends at once; alone it goes on to try."""
    monkeypatch.setattr(lease, "_FAILING_SECONDS", 0.4)
    monkeypatch.setattr(lease, "_REST_SECONDS", 2.0)
    first = await begun(session)

    async def fail(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and first.is_ours:
            first.note_failure()
            await asyncio.sleep(0.1)

    await fail(1.0)
    second = await begun(session)
    assert (first.is_ours, second.is_ours) == (True, False)
    failing = asyncio.create_task(fail(5.0))
    assert await holds(second) < lease._SILENT_SECONDS / 2
    await failing
    assert (first.is_ours, second.is_ours) == (False, True)
    await second.stop()
    assert await holds(first) > 1.0
    await first.stop()


async def test_a_single_failure_costs_no_lease(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_FAILING_SECONDS", 0.4)
    monkeypatch.setattr(lease, "_CALM_SECONDS", 0.6)
    first, second = await begun(session), await begun(session)
    for _ in range(3):
        await asyncio.sleep(0.7)
        first.note_failure()
    await asyncio.sleep(0.5)
    for _ in range(8):
        first.note_success()
        first.note_failure()
        await asyncio.sleep(0.1)
    assert not first.is_failing
    assert (first.is_ours, second.is_ours) == (True, False)
    for one in (second, first):
        await one.stop()


async def test_errors_of_the_server_are_no_failures_of_the_process_and_those_of_its_files_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background_service, "_PAUSE_SECONDS", 0.0)
    errors: list[Exception] = [UnavailableError("away"), LocalFileError("full"), UnavailableError("away"), OSError()]
    failures: list[int] = []

    async def work() -> None:
        if errors:
            raise errors.pop(0)

    await background_service.restarting("the work", work, on_failure=lambda: failures.append(len(errors)))
    assert failures == [2, 0]


async def writes_of(session: Session, seconds: float) -> int:
    """Return how many messages are stored in the bucket in so many seconds."""
    log = await Log.unstamped(session.client, lease.STREAM)
    before = await log.last_position()
    await asyncio.sleep(seconds)
    return await log.last_position() - before


async def test_a_holder_without_standbys_writes_seldom_and_learns_of_the_first_one_at_once(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_ALONE_SECONDS", 1.2)
    first = await begun(session)
    assert await writes_of(session, 2 * lease._ALONE_SECONDS) <= 3
    second = await begun(session)
    assert await writes_of(session, 3 * lease._RENEW_SECONDS) >= 2
    assert (first.is_ours, second.is_ours, first.is_working, second.is_working) == (True, False, True, False)
    await die(first)
    assert await holds(second) < lease._SILENT_SECONDS + 2 * lease._RENEW_SECONDS
    await second.stop()


async def test_holders_that_cannot_hear_standbys_do_not_take_turns(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a user of the operator's own server may not subscribe to their subject."""
    monkeypatch.setattr(lease, "_ALONE_SECONDS", 2.0)
    first, second = Lease(session.client, "test"), Lease(session.client, "test")
    for one in (first, second):
        await one.start()
        await session.client.unsubscribe_raw(one._subscriptions[1])
    assert first.is_ours
    await holds(second)
    await holds(first)
    await asyncio.sleep(2 * lease._ALONE_SECONDS)
    assert (first.is_ours, second.is_ours) == (True, False)
    assert caplog.text.count("a standby that was not heard on resolution.standby.test") == 2
    for one in (second, first):
        await one.stop()


async def test_a_holder_that_was_cut_off_learns_that_another_works(session: Session) -> None:
    """It missed the other's write, and no standby asks it to renew."""
    client = await session.connection("cut-off")
    first, second = Lease(client, "test"), Lease(session.client, "test")
    await first.start()
    await die(first)
    await client.unsubscribe_raw(first._subscriptions[0])
    await second.start()
    assert second.is_ours
    first._standby_at = float("-inf")
    first._written_at = time.monotonic()
    client.stats["reconnects"] += 1
    keeping = asyncio.create_task(first._keep())
    await asyncio.sleep(2 * lease._RENEW_SECONDS)
    assert (first.is_ours, second.is_ours) == (False, True)
    keeping.cancel()
    await second.stop()


async def test_a_renewal_that_was_interrupted_is_given_up_all_the_same(session: Session) -> None:
    first, second = await begun(session), await begun(session)
    position = first._position
    await first._write()
    await first.end_tasks()
    first._position = position  # as where the task was cancelled before the answer came
    await first.stop()
    assert await holds(second) < lease._SILENT_SECONDS / 2
    await second.stop()


async def test_a_process_of_this_host_that_has_ended_is_not_waited_for(session: Session) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    log = await Log.unstamped(session.client, lease.STREAM)
    for name, seconds in (
        (f"{lease._place()}/{ended.pid}/aa", 0.5),
        (f"{lease._place()}/{os.getpid()}/aa", 60),
        ("x/pid:[1]/1/a", 60),
    ):
        task = f"task-{seconds}-{len(name)}"
        await log.append([Draft(f"$KV.ledger-leases.{task}", json.dumps({"holder": name, "writes": 1}).encode())])
        begun_at = time.monotonic()
        one = await begun(session, task)
        assert one.is_ours
        found = time.monotonic() - begun_at
        assert found < seconds
        assert found > lease._SILENT_SECONDS or seconds == 0.5
        await one.stop()
