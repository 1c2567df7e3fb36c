"""The HTTP API's reads: documents, paging, caching, and problem details on errors."""

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.runtime.session import Session
from app.runtime.views import up_to_date
from dashboard import report_cache
from dashboard.listen_address import ListenAddress
from dashboard.routes import reports
from dashboard.view_reader import NotReadyError, ViewReader
from domain.events.administration import TrailRead
from ledger.errors import LedgerError
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from projections.engine.events import read_event
from projections.engine.projector import StoppedError, catch_up
from projections.engine.storage import read_progress
from projections.registry import MODELS
from projections.reports.beyond_authority import beyond_authority
from projections.reports.service_quality import quality_report
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.http_api import read_current, served
from tests.support.organisations import BASIC_POLICY
from tests.support.up_process import UpProcess
from tests.support.waiting import eventually

LISTS = ("balances", "actions", "escalations", "flags", "trail")
DOCUMENTS = ("loyalty", "gap", "quality", "recognition")
HOSTILE = "<script>alert(1)</script>\u202e🛒" + "x" * 10_000


async def test_a_read_does_not_wait_for_a_server_that_does_not_answer(session: Session) -> None:
    """A position known a moment ago is answered at once; after a longer pause a read waits."""
    views = ViewReader(session.views, session.log)
    pid = int((session.data_dir / "server" / "server.pid").read_text())
    known = await views.end()
    await asyncio.sleep(0.03)  # not so long that it is old
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(0.2):
            assert await views.end() == known
        await asyncio.sleep(0.5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await views.end()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await views.end() == known


async def test_many_readers_do_not_wait_for_each_other(session: Session) -> None:
    """Concurrent readers share one answer of the server, which a single reader would wait for."""
    views = ViewReader(session.views, session.log)
    pid = int((session.data_dir / "server" / "server.pid").read_text())
    known = [await views.end() for _ in range(100)][-1]
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(0.08):
            assert {await views.end() for _ in range(10)} == {known}
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_every_list_and_document_carries_position_and_lag(session: Session) -> None:
    async with served(session) as (_, client):
        end = await session.log.last_position()
        for path in (*LISTS, *DOCUMENTS):
            document = await read_current(client, path)
            assert (document["position"], document["lag_seconds"]) == (end, 0), path
        actions = await read_current(client, "actions")
        assert [one["reason"] for one in actions["items"]] == ["late 2", "late 1", "late 0"]
        (balance,) = (await read_current(client, "balances"))["items"]
        assert balance["spent"] == {"amount": "15.00", "currency": "GBP"}
        views = await read_current(client, "projections")
        assert {one["view"] for one in views["items"]} == set(MODELS)
        first = await read_current(client, "events/1")
        assert (first["event"]["position"], first["event"]["specversion"]) == (1, "1.0")


async def test_a_view_that_stopped_at_its_first_event_has_the_age_of_that_event(session: Session) -> None:
    """Its `lag_seconds` was 0, as of a view that has read the whole log."""
    made = datetime.now(UTC)
    unknown = encode_event("crm", "x-1", "resolution.unheard.of.v1", made, b"{}")
    await session.log.append([Draft("ledger.fact.crm", unknown)])
    views = ViewReader(session.views, session.log)
    model = MODELS["casework"]()
    with pytest.raises(StoppedError):
        await catch_up(model, session.views, await session.connection("view"), session.log)
    await asyncio.sleep(0.05)
    progress = (await views.read("casework", lambda _connection: None)).progress
    assert progress.stopped is not None
    passed = (datetime.now(UTC) - made).total_seconds()
    assert 0.05 < await views.lag(progress) < passed + 1
    states = {state.view: state for state in await views.states()}
    assert states["casework"].lag_seconds > 0.05
    assert states["people"].lag_seconds > 0.05  # it is not built yet
    views.close()


async def test_a_question_right_after_the_start_waits_for_its_view(session: Session) -> None:
    """Clients that trusted "is up" got 503 while a busy machine was making the views."""
    views = ViewReader(session.views, session.log, patience_seconds=10)
    hurried = ViewReader(session.views, session.log)
    asked = asyncio.create_task(views.read("casework", lambda _connection: "read", short=True))
    await asyncio.sleep(0.2)
    assert not asked.done()
    assert not views.is_built("casework")
    with pytest.raises(NotReadyError, match="casework is not built yet"):
        await hurried.read("casework", lambda _connection: "read")
    await catch_up(MODELS["casework"](), session.views, await session.connection("view"), session.log)
    assert (await asked).result == "read"
    views.close()


async def test_the_age_of_a_view_that_is_behind_is_that_of_its_oldest_unread_event(session: Session) -> None:
    async def record(name: str) -> None:
        made = encode_event("crm", name, "resolution.shift.started.v1", datetime.now(UTC), b'{"employee_id": "A-1"}')
        await session.log.append([Draft("ledger.fact.crm", made)])

    await record("s-1")
    await up_to_date(session, "people")
    await asyncio.sleep(1.2)  # beyond a second, a view's age is that of an event in the log
    await record("s-2")
    views = ViewReader(session.views, session.log)
    progress = (await views.read("people", lambda _connection: None)).progress
    assert progress.anchor.position == 1
    assert 0 < await views.lag(progress) < 1
    await up_to_date(session, "people")
    assert await views.lag((await views.read("people", lambda _connection: None)).progress) == 0
    views.close()


async def test_lists_are_paged_filtered_read_as_of_and_not_modified(session: Session) -> None:
    async with served(session) as (_, client):
        page = await read_current(client, "actions", limit=2, order="asc")
        assert (len(page["items"]), page["next"]) == (2, page["items"][1]["position"])
        rest = await read_current(client, "actions", limit=2, order="asc", after=page["next"])
        assert ([one["reason"] for one in rest["items"]], rest["next"]) == (["late 2"], None)
        assert (await read_current(client, "actions", agent="nobody"))["items"] == []
        before = await read_current(client, "actions", as_of=page["items"][0]["position"])
        assert (len(before["items"]), before["position"]) == (1, page["items"][0]["position"])
        (then,) = (await read_current(client, "balances", as_of=page["items"][0]["position"]))["items"]
        assert then["spent"]["amount"] == "5.00"
        answer = await client.get("/api/v1/actions")
        again = await client.get("/api/v1/actions", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        packed = await client.get("/api/v1/trail", headers={"Accept-Encoding": "gzip"})
        assert packed.headers["Content-Encoding"] == "gzip"


async def test_a_long_read_moves_to_a_thread_and_reads_at_one_position(session: Session) -> None:
    counting = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300000) SELECT max(x) FROM n"
    async with served(session):
        views = ViewReader(session.views, session.log)
        threads: list[int] = []

        def long(connection: sa.Connection) -> Any:
            threads.append(threading.get_ident())
            return connection.exec_driver_sql(counting).cursor.fetchone()

        assert (await views.read("budget_balances", long, short=True)).result == (300_000,)
        here = threading.get_ident()
        assert [one == here for one in threads] == [True, False]

        generation = session.data_dir / "views" / "budget_balances.sqlite"

        def meanwhile(connection: sa.Connection) -> Any:
            with sqlite3.connect(generation, timeout=5) as other:
                other.execute("UPDATE progress SET position = position + 7")
            return read_progress(connection).anchor.position

        for short in (True, False):
            found = await views.read("budget_balances", meanwhile, short=short)
            assert found.result == found.progress.anchor.position
        views.close()


def test_small_answers_leave_at_once() -> None:
    with ListenAddress(port=0).bound() as listening:
        assert listening.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY on what such a socket accepts


async def test_requests_without_a_token_are_refused_and_errors_are_problem_details(session: Session) -> None:
    async with served(session) as (_, client):
        open_paths = {"/healthz", "/readyz", "/api/v1/session"}
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert {f"/api/v1/{path}" for path in (*LISTS, *DOCUMENTS, "stream", "projections")} <= paths.keys()
        for path, methods in paths.items():
            for method in methods if path not in open_paths else ():
                for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}):
                    body: Any = {} if method == "post" else None
                    refused = await client.request(method, re.sub(r"{\w+}", "1", path), headers=headers, json=body)
                    assert refused.status_code == 401, path
                    assert refused.headers["WWW-Authenticate"] == "Bearer"
        for path, status in (
            ("events/999999", 404),
            ("events/x", 422),
            ("actions?limit=0", 422),
            ("none", 404),
            ("actions?as_of=yesterday", 422),
            ("actions?after=-1", 422),
        ):
            wrong = await client.get(f"/api/v1/{path}")
            assert (wrong.status_code, wrong.headers["Content-Type"]) == (status, "application/problem+json"), path
            assert wrong.json()["status"] == status
        assert (await client.get("/api/v1/actions", params={"limit": 0})).json()["field"] == "limit"
        assert (await client.get("/healthz", headers={"Authorization": ""})).json() == {"status": "ok"}
        assert (await client.post("/api/v1/actions")).status_code == 405
        shown = (await client.get("/metrics")).text
        assert f"resolution_ledger_last_position {float(await session.log.last_position())}" in shown
        assert 'resolution_ledger_role_processes{role="dashboard"} 1.0' in shown
        assert 'resolution_ledger_role_processes{role="guard"} 0.0' in shown
        assert re.search(r'resolution_ledger_role_position{role="decisions"} [1-9]', shown)


async def test_reads_about_a_person_are_recorded_where_the_policy_says_so(session: Session) -> None:
    async with served(session) as (upstream, client):
        privacy = {"privacy": {"pseudonyms": True, "record_reads": True}}
        assert (await client.get("/api/v1/trail", params={"agent": "A-1"})).status_code != 403
        policy = BASIC_POLICY | {"default_role": "agent"} | privacy
        assert (await upstream.ask("policy", request_id="p2", policy=policy, published_by="o"))["outcome"] == "done"
        end = await session.log.last_position()
        await read_current(client, "trail")  # names nobody
        for path in ("trail?agent=A-1", "trail?customer=C", "trail?action=act-1", "trail?interaction=I"):
            assert (await client.get(f"/api/v1/{path}")).status_code == 200, path
        read = [read_event(one) for one in await session.log.read_subject("ledger.trail", end)]
        assert {(one.body.read_by, *one.body.about) for one in read if isinstance(one.body, TrailRead)} == {
            ("connection.json", "agent:A-1"),
            ("connection.json", "customer:C"),
            ("connection.json", "action:act-1"),
        }


async def test_a_kept_report_tells_how_far_it_is_behind(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_cache, "_MIN_SECONDS", 60)
    async with served(session) as (upstream, client):
        await read_current(client, "actions")
        before = {name: (await client.get(f"/api/v1/{name}")).json() for name in ("gap", "summary")}
        await upstream.action("r-new")
        await asyncio.sleep(1.1)  # a view that is within a second of the end counts its own age
        end = (await read_current(client, "actions"))["position"]
        for name, earlier in before.items():
            kept = (await client.get(f"/api/v1/{name}")).json()
            assert kept["position"] == earlier["position"] < end
            assert kept["lag_seconds"] > 0


async def test_a_report_is_computed_again_only_after_an_event(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same figures are 304, and are not computed again."""
    monkeypatch.setattr(report_cache, "_MIN_SECONDS", 0)
    monkeypatch.setattr(report_cache, "_COMPUTING_TIMES", 0)
    computed = Counter[str]()
    for name, compute in (("quality", quality_report), ("beyond-authority", beyond_authority)):

        async def counted(*given: Any, name: str = name, compute: Any = compute) -> Any:
            computed[name] += 1
            return await compute(*given)

        monkeypatch.setattr(reports, compute.__name__, counted)
    async with served(session) as (upstream, client):
        for name in ("quality", "beyond-authority"):
            answer = await read_current(client, name)
            before, tag = computed[name], (await client.get(f"/api/v1/{name}")).headers["ETag"]
            again = await client.get(f"/api/v1/{name}", headers={"If-None-Match": tag})
            assert (again.status_code, again.content, computed[name]) == (304, b"", before)
            await upstream.action(f"after {name}")
            await read_current(client, "actions")
            await eventually(lambda: client.get("/api/v1/projections"), has_read(answer["position"] + 1))
            first = (await client.get(f"/api/v1/{name}", headers={"If-None-Match": tag})).status_code
            assert first == 200
            assert (await read_current(client, name))["position"] > answer["position"]
            assert computed[name] == before + 1


async def test_many_reports_at_once_are_all_answered(session: Session) -> None:
    """More than there are threads: a report that waited for another thread would wait for ever."""
    async with served(session) as (_, client):
        await read_current(client, "summary")
        days = [f"2026-{month:02}-{day:02}" for month in range(1, 5) for day in (1, 15)]
        paths = ("summary", "beyond-authority", "consistency")
        asked = [client.get(f"/api/v1/{path}", params={"from": day}) for day in days for path in paths]
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def test_no_report_waits_for_an_answer_in_another_event_loop(session: Session) -> None:
    """Reports are computed in threads; what reads the log there would wait for its whole time-out of five seconds."""
    async with served(session) as (upstream, client):
        position = (await upstream.action("r-late"))["position"]
        await read_current(client, "summary")
        await eventually(lambda: client.get("/api/v1/projections"), has_read(position))
        for path in ("gap", "quality", "recognition", "loyalty"):
            begun = time.monotonic()
            answers = [await client.get(f"/api/v1/{path}", params={"as_of": position - one}) for one in range(2)]
            assert {one.status_code for one in answers} == {200}, path
            assert time.monotonic() - begun < 4.5, path


def has_read(position: int) -> Callable[[httpx.Response], bool]:
    """Return a check that each view has read the log up to a position."""
    return lambda answer: all(one["position"] >= position for one in answer.json()["items"])


async def test_view_updates_are_sent_at_once_and_again_after_a_reconnect(session: Session) -> None:
    async with served(session) as (upstream, client):
        await read_current(client, "actions")

        async def heard(after: str | None, until: int) -> list[Document]:
            found = []
            headers = {"Last-Event-ID": after} if after else {}
            async with client.stream("GET", "/api/v1/stream", headers=headers) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        found.append(json.loads(line.removeprefix("data: ")))
                        if found[-1]["view"] == "casework" and found[-1]["position"] >= until:
                            return found
            return found

        end = await session.log.last_position()
        listening = asyncio.create_task(heard(None, end + 1))
        await asyncio.sleep(0.3)
        await upstream.action("r-new")
        assert (await asyncio.wait_for(listening, 10))[-1]["position"] > end
        again = await asyncio.wait_for(heard(str(end), end + 1), 10)
        assert all(one["position"] >= end for one in again)
        await read_current(client, "actions")
        end = await session.log.last_position()  # one view announced it; the others reached it while nobody listened
        assert {one["position"] for one in await asyncio.wait_for(heard(str(end), end), 10)} == {end}


async def test_hostile_text_comes_back_as_it_is(session: Session) -> None:
    async with served(session) as (upstream, client):
        await upstream.record(event("h", "interaction.opened", interaction_id="I-h", reason=HOSTILE))
        for name in MODELS:
            await up_to_date(session, name)
        by_reason = {one["reason"] for one in (await read_current(client, "quality"))["by_reason"]}
        assert HOSTILE in by_reason
        answer = await client.get("/api/v1/trail", params={"agent": HOSTILE[:200]})
        assert answer.json()["items"] == []
        assert "json" in answer.headers["Content-Type"]


def test_up_says_where_it_is_and_a_port_that_is_taken_is_refused(up: UpProcess, command: CommandLine) -> None:
    where = up.wait_until_up()
    headers = {"Authorization": f"Bearer {where['http_token']}"}
    get = partial(httpx.get, headers=headers, timeout=10)
    for _ in range(100):
        try:
            answer = get(f"{where['http_url']}/readyz")
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            break
        command("--version", data_dir=None)  # takes a moment
    assert answer is not None
    assert answer.status_code == 200
    assert get(f"{where['http_url']}/api/v1/balances").json()["items"] == []
    with ListenAddress(port=0).bound() as taken, pytest.raises(LedgerError, match="is taken"):
        ListenAddress(port=taken.getsockname()[1]).bound()
