"""Kept reports: served at once while a newer one is computed, within a bound; prepared at start; a fair share for each reader."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dashboard import report_cache
from dashboard.routes import reports
from dashboard.view_reader import NotReadyError
from ledger.errors import UnavailableError
from projections.policy_history import published_policies
from projections.reports.empowerment_gap import gap_report
from projections.reports.summary import summary
from tests.support.http_api import client_with_token, read_current, served, served_with_tokens
from tests.support.waiting import eventually, wait_until

if TYPE_CHECKING:
    from app.runtime.session import Session

REPORTS = ("gap", "quality", "recognition", "loyalty")


@pytest.fixture
def all_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every report counts as slow, and none is kept for its first moment."""
    for name in ("_MIN_SECONDS", "_COMPUTING_TIMES", "_SLOW_SECONDS"):
        monkeypatch.setattr(report_cache, name, 0.0)
    monkeypatch.setattr(report_cache, "_OLDER_TIMES", 1e9)
    monkeypatch.setattr(report_cache, "_LOOK_SECONDS", 0.05)


@pytest.mark.usefixtures("all_slow")
async def test_an_older_report_is_served_at_once_and_computed_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_cache, "_OLDER_SECONDS", 3600.0)
    async with served(session) as (upstream, client):
        before = {name: await read_current(client, name) for name in REPORTS}
        await upstream.action("r-new")
        await asyncio.sleep(1.1)  # a view that is within a second of the end counts its own age
        end: int = (await read_current(client, "actions"))["position"]
        for name, earlier in before.items():
            kept = (await client.get(f"/api/v1/{name}")).json()
            assert kept["position"] == earlier["position"] < end
            assert kept["lag_seconds"] > 0
            exact = (await client.get(f"/api/v1/{name}", params={"as_of": end})).json()
            assert (exact["position"], exact["lag_seconds"]) == (end, 0)
        monkeypatch.setattr(report_cache, "_OLDER_SECONDS", 60.0)
        monkeypatch.setattr(report_cache, "_OLDER_TIMES", 1.0)  # too old now: its reader waits
        assert (await client.get("/api/v1/gap")).json()["position"] == end


@pytest.mark.usefixtures("all_slow")
async def test_a_report_is_renewed_without_a_request(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a reader finds the newest figures at once; a report that was not asked for in three days is computed by its reader."""
    monkeypatch.setattr(report_cache, "_OLDER_SECONDS", 0.2)
    computed: list[int] = []

    async def counted(*given: Any, **named: Any) -> Any:
        found = await gap_report(*given, **named)
        computed.append(found["position"])
        return found

    monkeypatch.setattr(reports, "gap_report", counted)
    async with served(session) as (upstream, client):
        await read_current(client, "gap")
        await upstream.action("r-new")
        end = (await read_current(client, "actions"))["position"]

        async def newest() -> int:
            return computed[-1]

        await eventually(newest, lambda position: position >= end)
        refusals: list[Exception] = [UnavailableError("an election"), NotReadyError()]

        async def refused(*given: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return await published_policies(*given)

        monkeypatch.setattr(reports, "published_policies", refused)
        await upstream.action("r-elected")
        end = (await read_current(client, "actions"))["position"]
        await eventually(newest, lambda position: position >= end)
        assert not refusals
        monkeypatch.setattr(report_cache, "_ASKED_SECONDS", 0.0)
        await upstream.action("r-newer")
        await read_current(client, "actions")
        await asyncio.sleep(0.5)
        assert computed[-1] == end


@pytest.mark.usefixtures("all_slow")
async def test_a_full_cache_drops_the_report_that_was_read_longest_ago(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest one stays, also among reports that are renewed; those without a reader of late go."""
    monkeypatch.setattr(report_cache, "_CAPACITY", 3)
    monkeypatch.setattr(report_cache, "_MIN_SECONDS", 60.0)
    computed = 0
    caches: list[report_cache.ReportCache] = []
    made = report_cache.ReportCache.__init__

    def noted(cache: report_cache.ReportCache, *given: Any) -> None:
        made(cache, *given)
        caches.append(cache)

    async def counted(*given: Any) -> Any:
        nonlocal computed
        computed += 1
        return await summary(*given)

    monkeypatch.setattr(report_cache.ReportCache, "__init__", noted)
    monkeypatch.setattr(reports, "summary", counted)
    async with served(session) as (_, client):
        for name in REPORTS[:3]:
            await read_current(client, name)
        await asyncio.gather(*(client.get("/api/v1/summary") for _ in range(10)))
        for _ in range(10):
            await client.get("/api/v1/summary")
        assert computed == 1
        monkeypatch.setattr(report_cache, "_ASKED_SECONDS", 0.0)
        await client.get("/api/v1/summary", params={"by": "reason"})
        (cache,) = caches
        assert len(cache._reports) == 1


async def test_reports_of_a_long_history_are_prepared_at_start(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PREPARED_FROM", 1)
    prepared: set[str] = set()

    def noting(name: str) -> Any:
        compute = getattr(reports, name)

        async def noted(*given: Any, **named: Any) -> Any:
            found = await compute(*given, **named)
            prepared.add(name)
            return found

        return noted

    names = {"gap_report", "loyalty_report", "recognition_report"}
    for name in names:
        monkeypatch.setattr(reports, name, noting(name))
    async with served(session):

        async def found() -> set[str]:
            return prepared

        await eventually(found, lambda some: some == names)


async def test_a_reader_with_many_reports_leaves_threads_to_others(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    started: list[Any] = []

    async def slow(read: Any, times: Any, by: Any, scope: Any) -> Any:
        if by == "kind":
            started.append(times)
            release.wait(20)  # its thread is that of this report
        return await summary(read, times, by, scope)

    monkeypatch.setattr(reports, "summary", slow)
    async with (
        served_with_tokens(session) as (address, tokens),
        client_with_token(address, tokens["operator"]) as many,
        client_with_token(address, tokens["auditor"]) as other,
    ):
        await read_current(many, "summary")
        days = [{"from": f"2026-01-{day:02}", "by": "kind"} for day in range(1, 9)]
        waiting = [asyncio.create_task(many.get("/api/v1/summary", params=one)) for one in days]
        await wait_until(lambda: len(started) == 2)
        try:
            answer = await asyncio.wait_for(other.get("/api/v1/summary", params={"by": "reason"}), 10)
        finally:
            release.set()
        assert (answer.status_code, len(started)) == (200, 2)
        assert {one.status_code for one in await asyncio.gather(*waiting)} == {200}


async def test_reports_and_lists_are_kept_by_their_reader_alone(session: Session) -> None:
    """Their tags are weak, because `lag_seconds` may differ between answers with equal figures."""
    async with served(session) as (_, client):
        for path in (*REPORTS[:3], "summary", "beyond-authority", "consistency", "unused-authority", "actions"):
            await read_current(client, path)
            answer = await client.get(f"/api/v1/{path}")
            assert answer.headers["Cache-Control"] == "private, no-cache", path
            assert answer.headers["ETag"].startswith('W/"'), path
        for path in ("loyalty", "me", "projections", "events/1", "sources", "actions/none"):
            answer = await client.get(f"/api/v1/{path}")
            assert answer.headers["Cache-Control"] == "private, no-cache", path
