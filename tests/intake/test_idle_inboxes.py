"""Inbox streams are bounded in number: those of idle sources are freed for others, without a loss of events."""

import asyncio
from pathlib import Path

import pytest

from app.health.checks import checks_of
from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from consumers.intake.idle_inboxes import IdleInboxes
from ledger.store.streams import js_api, stream_config, stream_names, stream_storing
from tests.support.builders import purchase
from tests.support.documents import Document
from tests.support.inboxes import make_known, publish_with_headers, wait_for_own_inbox
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import wait_for_intake

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def few_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "SOURCES_AT_MOST", 3)
    monkeypatch.setattr("consumers.intake.idle_inboxes.ACTIVE_SECONDS", 1.0)
    monkeypatch.setattr("consumers.intake.inboxes._LOOK_SECONDS", 0.1)


async def own_inboxes(session: Session) -> list[str]:
    return topology.inbox_streams(await stream_names(session.client))[2:]


async def sends_until(upstream: Upstream, source: str, other: str) -> None:
    """Publish as two sources until the second has an inbox of its own."""
    token = topology.source_stream_name(other)
    for number in range(200):
        await upstream.record(purchase(f"{source}-{number}", source))
        await upstream.record(purchase(f"{other}-{number}", other))
        if await stream_storing(upstream.session.client, f"resolution.inbox.{other}") == token:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{other} has no inbox of its own")


async def test_a_source_that_sends_gets_the_inbox_of_the_longest_idle_and_an_active_one_keeps_its_own(
    session: Session,
) -> None:
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "honest", "idle-1", "idle-2")
        created = (await js_api(session.client, "STREAM.INFO.INBOX_honest"))["created"]
        await sends_until(upstream, "honest", "newcomer")
        assert (await js_api(session.client, "STREAM.INFO.INBOX_honest"))["created"] == created
        assert await own_inboxes(session) in (
            ["INBOX_honest", "INBOX_idle-1", "INBOX_newcomer"],
            ["INBOX_honest", "INBOX_idle-2", "INBOX_newcomer"],
        )
        for source in ("idle-1", "idle-2"):
            await upstream.record(purchase("awake", source))
        await sends_until(upstream, "honest", "idle-1")
        ids = [(one["source"], one["id"]) for one in await upstream.replay()]
        assert len(ids) == len(set(ids))


async def test_active_sources_keep_their_inboxes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.intake.idle_inboxes.ACTIVE_SECONDS", 600.0)
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "a", "b", "c")
        for number in range(20):
            await upstream.record(purchase(number, f"invented-{number}"))
        await asyncio.sleep(0.5)
        assert await own_inboxes(session) == ["INBOX_a", "INBOX_b", "INBOX_c"]
        finding = next(check for check in await checks_of(session) if check.check == "sources")
        assert not finding.ok
        assert "all 3 inboxes" in finding.says
        assert "10 minutes" in finding.says


async def test_new_streams_are_made_at_a_bounded_rate(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "SOURCES_AT_MOST", 500)
    monkeypatch.setattr(topology, "ROUTES_AT_ONCE", 5)
    monkeypatch.setattr(topology, "ROUTES_A_SECOND", 0.0)
    async with upstream_of(session, "intake") as upstream:
        for number in range(30):
            await upstream.publish(purchase(1, f"invented-{number}"))
        await upstream.record(purchase(1, "honest"))
        await asyncio.sleep(0.5)
        assert len(await own_inboxes(session)) == 5


async def test_after_600_invented_sources_an_honest_one_gets_its_own_inbox(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "SOURCES_AT_MOST", 20)
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "honest")
        created = (await js_api(session.client, "STREAM.INFO.INBOX_honest"))["created"]
        for number in range(600):
            await upstream.publish(purchase(1, f"invented-{number}"))
            if number % 50 == 0:
                await upstream.publish(purchase(f"i-{number}", "honest"))
        await sends_until(upstream, "honest", "newcomer")
        assert len(await own_inboxes(session)) <= 20
        assert (await js_api(session.client, "STREAM.INFO.INBOX_honest"))["created"] == created
        await wait_for_intake(session)
        sources = {one["source"] for one in await upstream.replay()}
        assert {f"invented-{number}" for number in range(600)} <= sources


STEPS = ("file", "route", "seal", "late", "delete")


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_any_step_loses_nothing(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The intake ends behind a step, as by SIGKILL; messages lie in the stream, and in the shared inbox."""
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session:
        async with upstream_of(session, "intake") as upstream:
            await make_known(upstream, "crm", "till")
        publisher = Upstream(session, await session.upstream("test"))
        acknowledged: list[str] = []

        async def publish(name: str) -> None:
            answers = [await publish_with_headers(publisher, purchase(f"{name}-{number}")) for number in range(5)]
            acknowledged.extend(f"p-{name}-{number}" for number, one in enumerate(answers) if "error" not in one)

        await publish("before")
        await _walk(session, step, monkeypatch)
        await publish("between")
        assert len(acknowledged) == 10
        if step in {"seal", "late"}:  # nothing is acknowledged there any more
            answer = await session.client.request("in.crm", b"{}", timeout=2)
            assert b'"error"' in answer.data
        async with upstream_of(session, "intake") as upstream:
            await publish("after")
            for name in acknowledged:
                assert (await upstream.receipt(name))["status"] == "recorded", name
            await wait_for_own_inbox(session, "crm", "till")
            await upstream.record(purchase("last"))
            ids = [one["id"] for one in await upstream.replay() if one["source"] == "crm"]
            assert sorted(ids) == sorted(["p-first", *acknowledged, "p-last"])
            config = await stream_config(session.client, "INBOX_crm")
            assert config is not None
            assert not config.get("sealed")


async def _walk(session: Session, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the steps of freeing `crm`'s stream up to this one."""
    routes = session.routes
    assert routes is not None
    idle = IdleInboxes(session.client, routes)
    await idle.observe()
    subject = topology.source_route("crm")[0]
    if step == "file":
        with monkeypatch.context() as silent:
            silent.setattr("ledger.nats.inbox_routes.request_once", lambda *_: None)
            with pytest.raises(Exception, match="no answer"):
                await routes.remove([subject])
    elif step == "route":
        await routes.remove([subject])
    else:
        assert await idle.release(["crm"], {"crm": "INBOX_crm"}) == ["crm"]
        assert await idle.delete_drained() == []  # the intake has not taken what is there
        if step == "delete":
            async with upstream_of(session, "intake"):
                await wait_for_intake(session)


async def test_a_recreated_stream_has_new_sequences(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "crm", "till", "erp")
        first = await publish_with_headers(upstream, purchase(1))
        await upstream.receipt("p-1")
        for source in ("till", "erp", "new"):
            await upstream.record(purchase(2, source))
        await asyncio.sleep(1.2)  # longer than an inbox may be idle here
        for number in range(200):
            for source in ("till", "erp", "new"):
                await upstream.record(purchase(f"n-{number}", source))
            if "INBOX_new" in await own_inboxes(session):
                break
            await asyncio.sleep(0.05)
        assert "INBOX_crm" not in await own_inboxes(session)
        await asyncio.sleep(1.2)  # longer than an inbox may be idle here
        for number in range(200):
            await upstream.record(purchase(f"c-{number}"))
            if "INBOX_crm" in await own_inboxes(session):
                break
            await asyncio.sleep(0.05)
        await wait_for_own_inbox(session, "crm")
        again: Document = await publish_with_headers(upstream, purchase("again"))
        assert again["stream"] == first["stream"]
        assert again["seq"] > first["seq"]
