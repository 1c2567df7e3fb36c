"""`admin doctor` about streams: each of its findings, made true on a real server, and nothing else is named."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from app.health.stream_checks import store, streams
from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from ledger.errors import LedgerError
from ledger.nats.client import LedgerClient
from ledger.store.streams import js_api
from tests.support.cluster_sessions import cluster_session
from tests.support.documents import Document
from tests.support.environment import long_only
from tests.support.nats_servers import Cluster, Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

LEDGER, INBOX, KEYS, SEAL = topology.LEDGER, topology.INBOX, topology.KEYS, topology.SEAL


def settings_of(url: str, folder: Path, **more: Any) -> Any:
    return load_settings({"data_dir": str(folder), "nats_url": url, "allow_lazy_fsync": True} | more, {})


async def wrong(session: Session) -> dict[str, str]:
    """Return the findings on streams, by check."""
    return {one.check: one.says async for one in streams(session) if not one.ok}


async def edit(client: LedgerClient, stream: str, **fields: Any) -> None:
    config = (await js_api(client, f"STREAM.INFO.{stream}"))["config"]
    answer = await js_api(client, f"STREAM.UPDATE.{stream}", config | fields)
    assert "error" not in answer, answer


EDITED: list[tuple[str, Document, str]] = [
    (LEDGER, {"max_msgs": 7}, "max_msgs is 7, declared -1"),
    (LEDGER, {"max_age": 10**12}, "max_age is 1000000000000, declared 0"),
    (LEDGER, {"max_bytes": 10**9}, "max_bytes"),
    (LEDGER, {"max_msgs_per_subject": 5}, "max_msgs_per_subject"),
    (LEDGER, {"discard": "old"}, 'discard is "old", declared "new"'),
    (LEDGER, {"deny_delete": False}, "deny_delete"),
    (LEDGER, {"deny_purge": False}, "deny_purge"),
    (LEDGER, {"allow_msg_ttl": True}, "allow_msg_ttl is true"),
    (LEDGER, {"allow_rollup_hdrs": True, "deny_purge": False}, "allow_rollup_hdrs is true"),
    (LEDGER, {"no_ack": True}, "no_ack"),
    (LEDGER, {"allow_atomic": False}, "allow_atomic"),
    (LEDGER, {"allow_direct": False}, "allow_direct"),
    (LEDGER, {"max_msg_size": 1000}, "max_msg_size"),
    (LEDGER, {"duplicate_window": 10**9}, "duplicate_window"),
    (LEDGER, {"subjects": ["ledger.fact.>"]}, "subjects"),
    (LEDGER, {"republish": {"src": "ledger.>", "dest": "copy.>"}}, "republish"),
    (INBOX, {"discard_new_per_subject": False}, "discard_new_per_subject"),
    (INBOX, {"max_age": 10**12}, "max_age"),
    (INBOX, {"allow_atomic": True}, "allow_atomic is true, declared false"),
    (topology.REJECTED, {"max_age": 10**12}, "max_age"),
    (KEYS, {"max_msgs_per_subject": 5}, "max_msgs_per_subject"),
    (SEAL, {"deny_delete": False}, "deny_delete"),
    (topology.ALARM, {"max_msg_size": 100}, "max_msg_size"),
    (topology.IMPORT, {"max_msgs": 5}, "max_msgs"),
]


@pytest.mark.parametrize(("stream", "fields", "text"), EDITED)
async def test_an_edited_stream_is_named_with_the_field(
    tmp_path: Path, stream: str, fields: Document, text: str
) -> None:
    with Server(tmp_path / "server") as server:
        async with Session(settings_of(server.url, tmp_path), creates=True) as session:
            assert await wrong(session) == {}
            try:
                await edit(session.client, stream, **fields)
            except AssertionError:  # the server lets a guard go only with a new stream
                assert not fields.keys() - {"deny_delete", "deny_purge", "allow_rollup_hdrs"}
                config = (await js_api(session.client, f"STREAM.INFO.{stream}"))["config"] | fields
                await js_api(session.client, f"STREAM.DELETE.{stream}")
                assert "error" not in await js_api(session.client, f"STREAM.CREATE.{stream}", config)
            found = await wrong(session)
            assert list(found) == [f"stream {stream}"]
            assert text in found[f"stream {stream}"]
            assert f"nats stream edit {stream}" in found[f"stream {stream}"]


@pytest.mark.parametrize("fields", [{"description": "ours"}, {"metadata": {"team": "x"}}, {"compression": "s2"}])
async def test_a_difference_that_loses_no_event_is_no_finding(tmp_path: Path, fields: Document) -> None:
    with Server(tmp_path / "server") as server:
        async with Session(settings_of(server.url, tmp_path), creates=True) as session:
            await edit(session.client, LEDGER, **fields)
            assert await wrong(session) == {}


@pytest.mark.parametrize("stream", [one["name"] for one in topology.stream_configs() if one["name"] != LEDGER])
async def test_a_missing_stream_is_named(tmp_path: Path, stream: str) -> None:
    with Server(tmp_path / "server") as server:
        async with Session(settings_of(server.url, tmp_path), creates=True) as session:
            await js_api(session.client, f"STREAM.DELETE.{stream}")
            found = await wrong(session)
            assert list(found) == [f"stream {stream}"]
            assert "admin init" in found[f"stream {stream}"]


async def test_a_changed_consumer_is_named(session: Session) -> None:
    wanted = topology.intake_consumer()
    body = {"stream_name": INBOX, "config": wanted | {"max_deliver": 3}}
    assert "error" not in await js_api(session.client, f"CONSUMER.DURABLE.CREATE.{INBOX}.intake", body)
    found = await wrong(session)
    assert list(found) == [f"consumer {INBOX}"]
    assert "max_deliver is 3, declared -1" in found[f"consumer {INBOX}"]


async def lead_from(session: Session, server: str) -> None:
    """Let one server lead all streams, so that another can go away without an election."""
    names = [one["name"] for one in topology.stream_configs()]
    for name in names:
        await js_api(session.client, f"STREAM.LEADER.STEPDOWN.{name}", {"placement": {"preferred": server}})

    async def leaders() -> set[str | None]:
        infos = [await js_api(session.client, f"STREAM.INFO.{name}") for name in names]
        return {info.get("cluster", {}).get("leader") for info in infos}

    await eventually(leaders, lambda found: found == {server})


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=long_only)])
async def test_a_copy_on_a_server_that_is_away_is_named_with_the_server(
    cluster: Cluster, tmp_path: Path, number: signal.Signals
) -> None:
    server = cluster.servers[2]
    async with cluster_session(cluster.url, tmp_path) as session:
        assert await wrong(session) == {}
        await lead_from(session, "n0")
        if number is signal.SIGKILL:
            await asyncio.to_thread(server.stop, number)
        else:
            server.send(number)

        # Nobody reports on streams for some seconds if the server led the cluster's own group or one of the streams.
        found = await eventually(
            lambda: wrong(session),
            lambda found: list(found) == ["server n2"],
            passing=(LedgerError,),
            every_seconds=0.2,
        )
        assert "are missing" in found["server n2"]
        assert "Start that server again" in found["server n2"]

        if number is signal.SIGKILL:
            await asyncio.to_thread(server.start)
        else:
            server.send(signal.SIGCONT)
        await eventually(lambda: wrong(session), lambda found: found == {}, passing=(LedgerError,), every_seconds=0.2)


async def test_fewer_copies_than_asked_for_or_than_the_log_has_are_named(cluster: Cluster, tmp_path: Path) -> None:
    async with cluster_session(cluster.url, tmp_path) as session:
        await edit(session.client, topology.IMPORT, num_replicas=1)
        found = await wrong(session)
        assert list(found) == [f"stream {topology.IMPORT}"]
        assert "admin init --replicas 3" in found[f"stream {topology.IMPORT}"]


@pytest.mark.parametrize("limited", ["account", "server"])
async def test_a_store_that_is_nearly_full_is_named(tmp_path: Path, limited: str) -> None:
    most = 4 * 1024 * 1024
    jetstream = f'jetstream {{ store_dir: "{tmp_path}/server", sync_interval: always, max_file_store: {most if limited == "server" else most * 100} }}'
    bound = f"{{ max_store: {most}, max_mem: 0 }}" if limited == "account" else "enabled"
    config = f"""
        accounts {{
          SYS {{ users: [{{user: s, password: s}}]
                 exports: [{{service: "$SYS.REQ.SERVER.PING.VARZ", response: stream}}] }}
          A {{ jetstream: {bound}, users: [{{user: a, password: a}}]
              imports: [{{service: {{account: SYS, subject: "$SYS.REQ.SERVER.PING.VARZ"}}}}] }}
        }}
        system_account: SYS
    """
    with Server(tmp_path / "server", config, jetstream=jetstream) as server:
        url = server.url.replace("nats://", "nats://a:a@")
        async with Session(settings_of(url, tmp_path), creates=True) as session:
            assert [one.ok async for one in store(session)] == [True]
            for number in range(64):
                reply = await session.client.request(f"ledger.fact.{number}", b"x" * 60_000, timeout=5)
                assert "error" not in json.loads(reply.data)
            (found,) = [one async for one in store(session)]
            assert not found.ok
            assert "% full" in found.says
