"""Inboxes: one stream for each known source and one that all others share; senders do not affect each other."""

import asyncio
import json
import re
from pathlib import Path

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.session import Session
from config import topology
from ledger.nats.inbox_routes import SourceRoutes
from ledger.store.streams import ensure_consumer, ensure_stream, js_api, stream_names, stream_storing
from ledger.store.subject_tokens import token_of_source
from tests.support.builders import event, purchase
from tests.support.inboxes import make_known, publish_with_headers, wait_for_own_inbox
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import eventually, wait_for_intake

# ---------------------------------------------------------------------- message ids


@pytest.mark.parametrize("pause", [0.0, 0.3, 2.0])
async def test_two_known_sources_may_use_one_message_id(session: Session, pause: float) -> None:
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "crm", "a.b")
        if pause:
            await publish_with_headers(upstream, purchase(1), "ev-1")
            await asyncio.sleep(pause)
            answers = [await publish_with_headers(upstream, purchase(1, "a.b"), "ev-1")]
        else:
            answers = await asyncio.gather(
                *(publish_with_headers(upstream, purchase(1, source), "ev-1") for source in ("crm", "a.b"))
            )
        assert not any("duplicate" in answer for answer in answers)
        for source in ("crm", "a.b"):
            assert (await upstream.receipt("p-1", source))["status"] == "recorded"


async def test_a_message_id_may_be_reused_after_150_ms(
    session: Session,
) -> None:
    async with upstream_of(session, "intake") as upstream:
        for number, source in enumerate(("new-1", "new-2")):
            assert "duplicate" not in await publish_with_headers(upstream, purchase(number, source), "ev-1")
            await asyncio.sleep(0.15)
        await make_known(upstream, "crm")
        for number in range(3):
            assert "duplicate" not in await publish_with_headers(upstream, purchase(number), "ev-1")
            await asyncio.sleep(0.15)
        near = [await publish_with_headers(upstream, purchase(number), "ev-2") for number in (7, 8)]
        assert ["duplicate" in answer for answer in near] == [False, True]
        for number in (0, 1, 2, 7):
            assert (await upstream.receipt(f"p-{number}"))["status"] == "recorded"
        for number in (0, 1):
            assert (await upstream.receipt(f"p-{number}", f"new-{number + 1}"))["status"] == "recorded"


# ---------------------------------------------------------------------- bounds


async def test_atomic_batches_of_upstreams_are_refused(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "crm")
        for source in ("crm", "stranger"):
            batch = {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1"}
            answer = await publish_with_headers(upstream, purchase(1, source), **batch)
            assert answer["error"]["err_code"] == 10174
        await upstream.record(purchase(2))


async def test_a_full_inbox_refuses_one_source_alone_until_it_is_taken(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "SOURCE_BYTES", 32 * 1024)
    monkeypatch.setattr("consumers.intake.inboxes._TRIM_SECONDS", 0.0)
    monkeypatch.setattr("consumers.intake.inboxes._LOOK_SECONDS", 0.05)
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "crm", "till")
        await wait_for_intake(session)
    publisher = Upstream(session, await session.upstream("test"))
    acknowledged = []
    for number in range(1000):
        answer = await publish_with_headers(publisher, purchase(number))
        if "error" in answer:
            break
        acknowledged.append(number)
    assert answer["error"]["err_code"] == 10077
    assert acknowledged
    assert "error" not in await publish_with_headers(publisher, purchase(1, "till"))
    assert "error" not in await publish_with_headers(publisher, purchase(1, "stranger"))
    async with upstream_of(session, "intake") as upstream:
        for number in acknowledged:
            receipt = await upstream.receipt(f"p-{number}")
            assert receipt.get("status") == "recorded", receipt
        await eventually(
            lambda: publish_with_headers(upstream, purchase("again")), lambda answer: "error" not in answer
        )
        assert (await upstream.receipt("p-again"))["status"] == "recorded"


async def test_in_the_shared_inbox_each_sender_has_a_bound(session: Session) -> None:
    """The bound itself, without filling ten thousand messages: as declared, and as the server enforces it."""
    config = topology.stream_configs()[0] | {"name": "SMALL", "subjects": ["small.*"], "max_msgs_per_subject": 3}
    await ensure_stream(session.client, config)
    subjects = ("small.a",) * 4 + ("small.b",)
    answers = [json.loads((await session.client.request(subject, b"{}", timeout=5)).data) for subject in subjects]
    assert [answer.get("error", {}).get("err_code") for answer in answers] == [None, None, None, 10077, None]
    assert topology.stream_configs()[0]["max_msgs_per_subject"] == topology.SHARED_MESSAGES_A_SOURCE


async def test_streams_for_sources_are_bounded_in_number(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "SOURCES_AT_MOST", 2)
    async with upstream_of(session, "intake") as upstream:
        for number in range(5):
            await upstream.record(purchase(1, f"s-{number}"))
        await wait_for_own_inbox(session, "s-0", "s-1")
        await asyncio.sleep(0.2)
        assert len(topology.inbox_streams(await stream_names(session.client))) == 4
        assert await stream_storing(session.client, "resolution.inbox.s-4") == topology.INBOX
        await upstream.record(purchase(2, "s-4"))


# ---------------------------------------------------------------------- names


@given(st.text(max_size=128), st.text(max_size=128))
def test_names_of_inboxes_are_valid_and_never_shared(one: str, other: str) -> None:
    first, second = (topology.source_stream_name(token_of_source(source)) for source in (one, other))
    assert re.fullmatch(r"INBOX_[a-z0-9_~-]{1,70}", first)
    assert (first == second) == (one == other)


def test_names_of_inboxes_are_apart_where_file_names_ignore_case() -> None:
    names = [topology.source_stream_name(token) for token in ("crm", "CRM", "Crm", "crm~1", "a%2Eb", "a%2eb", "a_b")]
    assert len({name.lower() for name in names}) == len(names)
    assert names[0] == "INBOX_crm"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("source", ["CRM", "a.b", "a:b~c", "🛒" * 60, "x" * 128, "*", ">", "%", "-", "a b", "in", "~"])
async def test_sources_of_all_kinds_get_an_inbox_of_their_own(shared_upstream: Upstream, source: str) -> None:
    await make_known(shared_upstream, source)
    answer = await publish_with_headers(shared_upstream, purchase(2, source))
    assert answer["stream"] == topology.source_stream_name(token_of_source(source))
    assert (await shared_upstream.receipt("p-2", source))["status"] == "recorded"


# ---------------------------------------------------------------------- the switch


async def routed_by_hand(session: Session, token: str, *, consumer: bool, route: bool, reload: bool) -> None:
    """Leave the routes as a crash after one of the steps of the switch leaves them."""
    await ensure_stream(session.client, topology.source_stream(token))
    if consumer:
        await ensure_consumer(session.client, topology.source_stream_name(token), topology.intake_consumer())
    routes = session.routes
    assert routes
    if route and reload:
        await asyncio.to_thread(routes.add, dict([topology.source_route(token)]))
    elif route:
        silent = SourceRoutes(routes.path, routes._lock)  # the server is not asked to read it
        with pytest.raises(Exception, match="no answer"):
            silent.add(dict([topology.source_route(token)]))


@pytest.mark.parametrize(
    ("consumer", "route", "reload"),
    [(False, False, False), (True, False, False), (True, True, False), (True, True, True)],
)
async def test_a_crash_at_any_step_of_the_switch_heals(
    session: Session, consumer: bool, route: bool, reload: bool
) -> None:
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase(1, "till"))
    await routed_by_hand(session, "crm", consumer=consumer, route=route, reload=reload)
    publisher = Upstream(session, await session.upstream("test"))
    await publisher.publish(purchase(1))
    async with upstream_of(session, "intake") as upstream:
        assert (await upstream.receipt("p-1"))["status"] == "recorded"
        await wait_for_own_inbox(session, "crm", "till")
        await upstream.record(purchase(2))
        await upstream.record(purchase(2, "till"))


async def test_a_route_without_its_stream_is_healed(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "crm")
    operator = await session.connection("operator", user="operator")
    await js_api(operator, "STREAM.DELETE.INBOX_crm")
    async with upstream_of(session, "intake") as upstream:
        await wait_for_own_inbox(session, "crm")
        await upstream.record(purchase(2))


async def test_a_lost_index_and_a_lost_file_of_routes_are_made_anew(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "crm")
    for path in (session.data_dir / "index").glob("intake.sqlite*"):
        path.unlink()
    (session.data_dir / "server" / "sources.conf").write_text("mappings: {{ nonsense")
    async with upstream_of(session, "intake") as upstream:
        assert "error" not in await publish_with_headers(upstream, purchase(2))
        await upstream.record(purchase(3, "till"))
        await wait_for_own_inbox(session, "crm", "till")
        assert (await upstream.receipt("p-2"))["status"] == "recorded"


async def test_routes_are_there_after_the_server_died(session: Session) -> None:
    import os
    import signal

    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "crm")
        assert session._server
        pid = session._server.pid()
        assert pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: upstream.receipt("p-first"), timeout_seconds=40, passing=(nats.errors.Error, OSError))
        assert session._server.pid() != pid
        await wait_for_own_inbox(session, "crm")
        await upstream.record(purchase(2))


async def test_a_correction_does_not_overtake_its_original_at_the_switch(session: Session) -> None:
    publisher = Upstream(session, await session.upstream("test"))
    for number in range(300):  # before it, in the shared inbox, much of others
        await publisher.publish(purchase(number, f"other-{number % 7}"))
    await publisher.publish(purchase(1))
    await routed_by_hand(session, "crm", consumer=True, route=True, reload=True)
    correction = event("c-1", "fact.corrected", source_of="crm", id_of="p-1", data=None, reason="typed wrongly")
    assert (await publish_with_headers(publisher, correction))["stream"] == "INBOX_crm"
    async with upstream_of(session, "intake") as upstream:
        answer = await upstream.receipt("c-1")
        assert answer["status"] == "recorded", answer


async def test_a_commands_facts_do_not_overtake_earlier_ones(session: Session, tmp_path: Path) -> None:
    from app.outcome import Outcome
    from app.publisher import Publisher, publish_all, read_lines

    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "crm")
    publisher = Upstream(session, await session.upstream("test"))
    for number in range(300):
        await publisher.publish(purchase(number))
    correction = event("c-1", "fact.corrected", source_of="crm", id_of="p-299", data=None, reason="typed wrongly")
    ours = await Publisher.open(session, Outcome(), lambda _: None)
    publishing = asyncio.create_task(publish_all(ours, read_lines([json.dumps(correction).encode()])))
    await asyncio.sleep(0.2)
    async with upstream_of(session, "intake"):
        await asyncio.wait_for(publishing, 30)
    assert (ours.outcome.recorded, ours.outcome.rejected) == (1, [])


async def test_a_command_counts_each_of_its_batches_when_the_intake_has_handled_it(session: Session) -> None:
    from app.outcome import Outcome
    from app.publisher import Publisher, publish_all, read_lines

    async with upstream_of(session, "intake"):
        ours = await Publisher.open(session, Outcome(), lambda _: None)
        await publish_all(ours, read_lines([json.dumps(purchase(1)).encode()]))
        assert ours.outcome.recorded == 1
    publishing = asyncio.create_task(publish_all(ours, read_lines([json.dumps(purchase(2)).encode()])))
    await asyncio.sleep(0.2)
    async with upstream_of(session, "intake"):
        await asyncio.wait_for(publishing, 30)
    assert (ours.outcome.recorded, ours.outcome.rejected) == (2, [])


async def test_a_flood_of_one_source_delays_no_other(session: Session) -> None:
    """Another's event, sent when thousands of the flooder's lie in its inbox, is recorded with the first of them."""
    flood = 6_000
    async with upstream_of(session, "intake") as upstream:
        await make_known(upstream, "flooder", "crm")
        await wait_for_intake(session)
    publisher = Upstream(session, await session.upstream("test"))
    subject, inbox = "resolution.inbox.flooder", publisher.client.new_inbox()
    for number in range(flood):
        await publisher.client.publish(subject, json.dumps(purchase(number, "flooder")).encode(), reply=inbox)
    await eventually(
        lambda: js_api(session.client, "STREAM.INFO.INBOX_flooder"),
        lambda info: info["state"]["messages"] >= flood,
        timeout_seconds=60,
    )
    await publisher.publish(purchase(1))
    async with upstream_of(session, "intake") as upstream:
        position = int((await upstream.receipt("p-1"))["position"])
        await wait_for_intake(session)
        assert await session.log.last_position() >= flood
        assert position < flood / 2


# ---------------------------------------------------------------------- what an earlier version made


async def as_an_earlier_version_made_it(session: Session) -> None:
    operator = await session.connection("operator", user="operator")
    await js_api(operator, "STREAM.DELETE.INBOX")
    config = topology.stream_configs()[0] | topology.earlier_inbox_fields() | {"discard_new_per_subject": False}
    answer = await js_api(operator, "STREAM.CREATE.INBOX", config)
    assert "error" not in answer, answer


@pytest.mark.integration
async def test_an_inbox_of_an_earlier_version_is_bounded_at_the_next_start(tmp_path: Path) -> None:
    from config.settings import load_settings

    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session:
        await as_an_earlier_version_made_it(session)
        publisher = Upstream(session, await session.upstream("test"))
        await publisher.publish(purchase(1))
    async with Session(settings) as session, upstream_of(session, "intake") as upstream:
        assert (await upstream.receipt("p-1"))["status"] == "recorded"
        config = (await js_api(session.client, "STREAM.INFO.INBOX"))["config"]
        assert config["duplicate_window"] == 100_000_000
        assert config["max_msgs_per_subject"] == topology.SHARED_MESSAGES_A_SOURCE
        assert not config.get("allow_atomic")
        assert config["metadata"][topology.TOKENS_SINCE] == "0"


async def test_a_changed_inbox_is_still_refused(session: Session) -> None:
    from ledger.errors import DriftError

    operator = await session.connection("operator", user="operator")
    changed = topology.stream_configs()[0] | {"max_msgs": 7}
    assert "error" not in await js_api(operator, "STREAM.UPDATE.INBOX", changed)
    with pytest.raises(DriftError, match="max_msgs"):
        async with Session(session.settings):
            pass


def test_the_stream_list_names_the_shared_inbox_first() -> None:
    names = ["LEDGER", "INBOX_till", "IMPORT", "INBOX", "INBOX_crm", "REJECTED"]
    assert topology.inbox_streams(names) == ["INBOX", "IMPORT", "INBOX_crm", "INBOX_till"]
