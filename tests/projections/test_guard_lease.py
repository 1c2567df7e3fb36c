"""The guard and its lease: what holds up the guard does not cost it the lease, and what stops it does."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.runtime.session import Session
from consumers.guard import service
from consumers.guard.service import GuardService
from consumers.guard.state import guard_folder
from domain.abuse.findings import RuleFinding
from domain.abuse.rule_interface import CountingRule
from ledger.errors import LostEventsError
from ledger.store import lease
from ledger.store.snapshots import Snapshots
from ledger.store.state_file import StateFile
from ledger.store.subscription import ReadCursor
from projections.engine.storage import claim
from tests.support.upstreams import upstream_of
from tests.support.waiting import eventually


async def longest_pause(until: asyncio.Event) -> float:
    """Return the longest time in seconds in which the event loop gave no turn."""
    longest = 0.0
    while not until.is_set():
        begun = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - begun)
    return longest


async def test_a_slow_disk_holds_up_no_renewal(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a guard that stops meanwhile closes its state only after the commit."""
    commit, committed = StateFile.commit, []

    def slow(self: StateFile, cursor: ReadCursor) -> None:
        time.sleep(1.0)
        commit(self, cursor)
        committed.append(cursor.position)

    monkeypatch.setattr(StateFile, "commit", slow)
    monkeypatch.setattr(service, "_COMMIT_EVENTS", 1)
    async with upstream_of(session) as upstream:
        guard, over = GuardService(session.url, session.log, session.data_dir), asyncio.Event()
        await guard.start()
        measuring = asyncio.create_task(longest_pause(over))
        await upstream.set_up_basics()
        await eventually(lambda: asyncio.sleep(0, committed))
        over.set()
        assert await measuring < 0.7
        assert guard._lease is not None
        assert guard._lease._client is not guard._clients[0]  # that of the log, whose events would delay its answers
        before = len(committed)
        await upstream.set_up_basics()
        await eventually(lambda: asyncio.sleep(0, guard._committed == committed[-1]))
        await guard.stop()
        assert len(committed) >= before
        assert not guard.failed.done()


async def test_no_copy_is_labelled_before_the_state_is_open(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a lost and regained lease the file may be an older one, or the copy of another process."""
    monkeypatch.setattr(service, "_COMMIT_EVENTS", 1)
    restoring = asyncio.Event()

    async def restore(*_: object) -> bool:
        restoring.set()
        await asyncio.Event().wait()
        return False

    async with upstream_of(session) as upstream:
        guard = GuardService(session.url, session.log, session.data_dir)
        await guard.start()
        assert guard._lease is not None
        await guard._lease.end_tasks()
        await upstream.set_up_basics()
        await eventually(lambda: asyncio.sleep(0, guard._committed))
        guard._lease.is_ours = False
        await eventually(lambda: asyncio.sleep(0, not guard._pulse.active))
        monkeypatch.setattr(guard._copies, "restore", restore)
        guard._lease.is_ours = True
        await restoring.wait()
        assert guard._pulse.active
        assert guard._committed == 0
        await guard.stop()


async def test_a_lost_event_is_told_although_the_lease_is_lost_too(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow(_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LostEventsError("an event is missing", 7)

    guard = GuardService(session.url, session.log, session.data_dir)
    await guard.start()
    assert guard._lease is not None
    await guard._lease.end_tasks()
    await eventually(lambda: asyncio.sleep(0, guard._pulse.active))
    guard._lease.is_ours = False
    await eventually(lambda: asyncio.sleep(0, not guard._pulse.active))
    monkeypatch.setattr(guard, "_follow", follow)
    guard._lease.is_ours = True
    await eventually(lambda: asyncio.sleep(0, guard._pulse.active))
    guard._lease.is_ours = False
    with pytest.raises(LostEventsError):
        await asyncio.wait_for(guard.failed, 5)
    await guard.stop()


def broken_rules() -> Sequence[CountingRule]:
    raise ValueError("no such table of the package")


@pytest.mark.parametrize("fault", ["rules", "folder"])
async def test_a_guard_that_cannot_work_leaves_the_work_to_a_standby(
    session: Session, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(lease, "_FAILING_SECONDS", 1.0)
    folder = session.data_dir / "first"
    async with upstream_of(session), AsyncExitStack() as stack:
        if fault == "rules":
            first = GuardService(session.url, session.log, folder, plugins=broken_rules)
        else:
            first = GuardService(session.url, session.log, folder)
            stack.enter_context(claim(guard_folder(folder), "guard"))
        await first.start()
        stack.push_async_callback(first.stop)
        await asyncio.sleep(1.5)  # longer than the failures that a standby would allow
        assert first._lease is not None
        assert first._lease.is_ours  # there is no standby, so it goes on to try
        assert not first.status().is_working
        second = GuardService(session.url, session.log, session.data_dir / "second")
        await second.start()
        stack.push_async_callback(second.stop)
        await eventually(lambda: asyncio.sleep(0, second.status().is_working))
        assert [one.status().is_working for one in (first, second)] == [False, True]
        assert not first.failed.done()


async def test_with_rules_of_other_packages_no_copy_is_fetched(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their guard reads the whole log, and would throw the copy away."""
    fetched: list[Path] = []

    async def restore(_: Snapshots, path: Path, position: int = 0) -> bool:
        fetched.append(path)
        return position < 0

    class Silent:
        def on(self, *_: object) -> Sequence[RuleFinding]:
            return ()

    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        monkeypatch.setattr(Snapshots, "restore", restore)
        for number, plugins in enumerate(([Silent()], [])):
            guard = GuardService(session.url, session.log, tmp_path / str(number), plugins=lambda rules=plugins: rules)  # type: ignore[misc]
            await guard.start()
            await eventually(session.log.last_position, lambda end, guard=guard: guard.position >= end)  # type: ignore[misc]
            await guard.stop()
            assert len(fetched) == number
