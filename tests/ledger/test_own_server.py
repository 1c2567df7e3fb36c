"""A NATS server of the user's own: everything works in one shared inbox, and is told how to do better."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.health.checks import checks_of
from app.runtime.session import Session
from app.runtime.sources import without_own_inbox
from config import topology
from ledger.errors import UpgradeNeededError
from ledger.nats.client import connect
from ledger.nats.inbox_routes import INCLUDE
from ledger.store.streams import js_api
from tests.support.builders import purchase
from tests.support.forked_cli import CommandLine
from tests.support.own_server import OwnServer
from tests.support.upstreams import Upstream, upstream_of


@pytest.fixture
def own(tmp_path: Path, command: CommandLine) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path)
    done = command("admin", "init", "--nats-url", server.url())
    assert done.returncode == 0, done.stderr
    yield server
    server.process.terminate()
    server.process.wait(10)


async def says(session: Session, check: str) -> tuple[str, bool]:
    found = [one for one in await checks_of(session) if one.check == check]
    return (found[0].says, found[0].ok) if found else ("", True)


async def test_sources_share_an_inbox_until_the_server_has_their_routes(own: OwnServer, command: CommandLine) -> None:
    async with Session(own.settings()) as session, upstream_of(session, "intake"):
        client = await connect(own.url("upstream"), "test")
        upstream = Upstream(session, client)
        await upstream.record(purchase(1, "crm"))
        assert (await says(session, "sources"))[0].startswith("crm shares one inbox")
        await upstream.record(purchase(1, "a.b"))
        text, ok = await says(session, "sources")
        assert "a.b" in text
        assert "admin inbox routes" in text
        assert ok
        words = ("admin", "inbox", "routes", "--nats-url", own.url())
        printed = command(*words, data_dir=own.folder / "data")
        assert printed.returncode == 0, printed.stderr
        (own.folder / "sources.conf").write_text(printed.stdout)
        own.config.write_text(own.config.read_text().replace(f"# {INCLUDE}", INCLUDE))
        own.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if not await without_own_inbox(session):
                break
        for source in ("crm", "a.b"):
            reply = await client.request(
                f"resolution.inbox.{source.replace('.', '%2E')}",
                json.dumps(purchase(2, source)).encode(),
                timeout=5,
                headers={"Nats-Msg-Id": "1"},
            )
            assert "duplicate" not in json.loads(reply.data)
            assert (await upstream.receipt("p-2", source))["status"] == "recorded"
        assert (await says(session, "sources"))[0] == "each known source has an inbox of its own"
        await client.close()


async def test_a_longer_window_is_a_finding(own: OwnServer) -> None:
    async with Session(own.settings("operator")) as session:
        changed = topology.stream_configs()[0] | {"duplicate_window": 60_000_000_000}
        assert "error" not in await js_api(session.client, "STREAM.UPDATE.INBOX", changed)
    async with Session(own.settings()) as session:
        text, ok = await says(session, "message ids")
        assert "60 s" in text
        assert not ok


async def test_an_inbox_of_an_earlier_version_needs_the_operator(own: OwnServer, command: CommandLine) -> None:
    async with Session(own.settings("operator")) as session:
        await js_api(session.client, "STREAM.DELETE.INBOX")
        config = topology.stream_configs()[0] | topology.earlier_inbox_fields() | {"discard_new_per_subject": False}
        assert "error" not in await js_api(session.client, "STREAM.CREATE.INBOX", config)
    with pytest.raises(UpgradeNeededError, match="admin upgrade"):
        async with Session(own.settings()):
            pass
    done = command("admin", "upgrade", "--nats-url", own.url("operator"), data_dir=own.folder / "data")
    assert done.returncode == 0, done.stderr
    async with Session(own.settings()) as session:
        info = await js_api(session.client, "STREAM.INFO.INBOX")
        assert info["config"]["duplicate_window"] == topology.SHORTEST_WINDOW_NS
