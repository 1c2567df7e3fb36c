"""The guard and its lease: what holds up the guard does not cost it the lease, and what stops it does."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.runtime.session import Session
from consumers.guard import service
from consumers.guard.service import GuardService
from domain.abuse.findings import RuleFinding
from ledger.store.snapshots import Snapshots
from ledger.store.state_file import StateFile
from ledger.store.subscription import ReadCursor
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
