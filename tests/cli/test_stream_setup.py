"""Creation of streams: by `admin init`, or by the first command on an embedded server; copies are raised later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import click
import pytest

from app.cli.main import cli
from app.runtime.roles import ROLES
from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from ledger.errors import MissingStreamsError
from ledger.nats.client import LedgerClient, connect
from ledger.store.streams import js_api, stream_names
from tests.support.builders import event, gbp
from tests.support.cluster_sessions import cluster_session
from tests.support.environment import ROOT
from tests.support.forked_cli import CommandLine
from tests.support.nats_servers import Cluster, Server
from tests.support.organisations import BASIC_POLICY
from tests.support.upstreams import upstream_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

BASE = {stream["name"] for stream in topology.stream_configs()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Start a server without streams, on which the only user has every permission."""
    with Server(tmp_path / "server") as started:
        yield started


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[LedgerClient]:
    client = await connect(url, "test")
    try:
        yield client
    finally:
        await client.close()


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command for people, with the words that name it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from leaves(found, (*path, name))
        elif not found.hidden:
            yield (*path, name), found


def words_of(command: click.Command, file: str, folder: str) -> list[str]:
    """Return words for each option and argument that the command requires."""
    words: list[str] = []
    for parameter in command.params:
        if not parameter.required:
            continue
        kind = parameter.type
        if isinstance(kind, click.Choice):
            value = str(kind.choices[0])
        elif isinstance(kind, click.File) or (isinstance(kind, click.Path) and kind.file_okay):
            value = file
        elif isinstance(kind, click.Path):
            value = folder
        elif isinstance(kind, click.IntRange) or kind is click.INT:
            value = "1"
        else:
            value = {"amount": "1.00", "mapping": "online_retail"}.get(str(parameter.name), "x")
        words += [parameter.opts[0], value] if isinstance(parameter, click.Option) else [value]
    return words


WITHOUT_A_LEDGER = {
    ("admin", "init"),
    ("admin", "certificates"),
    ("mcp",),
    ("policy", "check"),
    ("policy", "diff"),
    ("audit", "verify-proof"),
    ("admin", "tokens", "restore"),
    ("report", "view"),
}
"""Commands that need no server, that create the streams, or that no package of the tests adds a view for."""
WORDS: dict[tuple[str, ...], list[str]] = {
    ("admin", "rejected", "retry"): ["--all"],
    ("admin", "tokens", "make"): ["x", "--role", "auditor"],
    ("report", "what-if"): ["in-force"],
    ("decide", "policy"): [str(ROOT / "config" / "policies" / "hotel.yaml"), "--published-by", "x"],
    ("admin", "policy", "publish"): [
        str(ROOT / "config" / "policies" / "hotel.yaml"),
        "--break-glass",
        "--reason",
        "x",
    ],
    ("import",): ["online_retail", "{csv}"],
}
"""Words of commands whose arguments are checked before a server is asked."""


async def test_no_command_and_no_role_creates_streams(server: Server, command: CommandLine, tmp_path: Path) -> None:
    file, folder = tmp_path / "file.json", tmp_path / "folder"
    file.write_text(json.dumps(event("p-1", "purchase.completed", order_id="O-1", total=gbp("5.00"))))
    folder.mkdir()
    csv = tmp_path / "lines.csv"
    csv.write_text("InvoiceNo,InvoiceDate,CustomerID,Quantity,UnitPrice\n1,2026-01-05 10:00:00,C-1,1,5.00\n")

    def tried(entry: tuple[tuple[str, ...], click.Command], *more: str) -> str:
        path, found = entry
        given = WORDS.get(path) or words_of(found, str(file), str(folder))
        words = [*path, *(word.replace("{csv}", str(csv)) for word in given), *more]
        done = command(*words, "--nats-url", server.url, "--allow-lazy-fsync", data_dir=tmp_path / "data")
        said = done.stderr.strip().splitlines()[-1:]
        good = done.returncode == 1 and "lacks" in said[0] and "`resolution-ledger admin init`" in said[0]
        return "" if good else f"{' '.join(words)}: {done.returncode}: {done.stdout[-300:]} {done.stderr[-300:]}"

    reaching = [entry for entry in leaves(cli) if any(one.name == "nats_url" for one in entry[1].params)]
    commands = [entry for entry in reaching if entry[0] not in WITHOUT_A_LEDGER]
    assert len(commands) > 30
    run = next(entry for entry in commands if entry[0] == ("run",))
    with ThreadPoolExecutor(3) as pool:
        wrong = [*pool.map(tried, [entry for entry in commands if entry is not run])]
        wrong += [*pool.map(lambda role: tried((("run", role), click.Command("run"))), ROLES)]
    assert "\n".join(filter(None, wrong)) == ""
    async with connection(server.url) as client:
        assert await stream_names(client) == []


async def test_init_creates_missing_streams_once(server: Server, command: CommandLine) -> None:
    where = ("--nats-url", server.url, "--allow-lazy-fsync")
    done = command("admin", "init", "--json", *where)
    assert done.returncode == 0, done.stderr
    assert {(one["stream"], one["copies"], one["done"]) for one in json.loads(done.stdout)["items"]} == {
        (name, 1, "created") for name in BASE
    }
    async with connection(server.url) as client:
        await js_api(client, "STREAM.DELETE.REJECTED")
        again = json.loads(command("admin", "init", "--json", *where).stdout)["items"]
        assert {one["stream"] for one in again if one["done"]} == {"REJECTED"}
        assert set(await stream_names(client)) == BASE


async def test_a_running_intake_does_not_make_a_deleted_stream_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.intake.inboxes._LOOK_SECONDS", 0.2)
    settings = load_settings({"data_dir": str(tmp_path / "data"), "nats_url": server.url, "allow_lazy_fsync": True}, {})
    async with Session(settings, creates=True):
        pass
    async with Session(settings) as session, upstream_of(session, "intake"):
        await js_api(session.client, "STREAM.DELETE.REJECTED")
        await asyncio.sleep(1)
        assert topology.REJECTED not in await stream_names(session.client)
    with pytest.raises(MissingStreamsError, match=r"REJECTED.*admin init"):
        async with Session(settings):
            pass


async def copies(client: LedgerClient) -> dict[str, tuple[int, int]]:
    """Return (configured copies, existing copies) of each stream and durable consumer."""
    found: dict[str, tuple[int, int]] = {}
    for name in await stream_names(client):
        info = await js_api(client, f"STREAM.INFO.{name}")
        found[name] = info["config"]["num_replicas"], 1 + len(info.get("cluster", {}).get("replicas") or ())
        for consumer in (await js_api(client, f"CONSUMER.NAMES.{name}")).get("consumers") or ():
            told = await js_api(client, f"CONSUMER.INFO.{name}.{consumer}")
            if "durable_name" in told["config"]:
                found[f"{name}/{consumer}"] = (
                    told["config"].get("num_replicas") or info["config"]["num_replicas"],
                    1 + len(told.get("cluster", {}).get("replicas") or ()),
                )
    return found


async def test_copies_are_raised_later_for_streams_keys_and_consumers(
    cluster: Cluster, tmp_path: Path, command: CommandLine
) -> None:
    where = ("--nats-url", cluster.url, "--allow-lazy-fsync")
    async with cluster_session(cluster.url, tmp_path, copies=1) as session:
        async with upstream_of(session) as upstream:
            policy = BASIC_POLICY | {"default_role": "agent"}
            await upstream.ask("policy", request_id="p", policy=policy, published_by="owner")
            await upstream.record(event("p-1", "purchase.completed", order_id="O-1", total=gbp("5.00")))
            await eventually(
                lambda: copies(session.client), lambda found: "INBOX_crm/intake" in found, every_seconds=0.2
            )
        by_hand = {"durable_name": "by-hand", "ack_policy": "explicit", "num_replicas": 1}
        body = {"stream_name": "LEDGER", "config": by_hand}
        assert "error" not in await js_api(session.client, "CONSUMER.DURABLE.CREATE.LEDGER.by-hand", body)
        assert {one[0] for one in (await copies(session.client)).values()} == {1}

        done = command("admin", "init", "--replicas", "3", "--json", *where)
        assert done.returncode == 0, done.stderr
        assert {one["copies"] for one in json.loads(done.stdout)["items"]} == {3}
        found = await eventually(
            lambda: copies(session.client), lambda found: set(found.values()) == {(3, 3)}, every_seconds=0.2
        )
        assert BASE | {"INBOX_crm", "INBOX/intake", "IMPORT/intake", "INBOX_crm/intake"} <= set(found)

        async with upstream_of(session) as upstream:  # started with --replicas 1: it goes on, and lowers nothing
            await upstream.record(event("p-2", "purchase.completed", order_id="O-2", total=gbp("5.00")))
            taken = await upstream.action(amount="5.00")
            assert taken["outcome"] == "taken", taken
            await upstream.record(event("p-3", "purchase.completed", "till", order_id="O-3", total=gbp("5.00")))
            await eventually(lambda: stream_names(session.client), lambda names: "INBOX_till" in names)
        assert command("admin", "init", *where).returncode == 0
        assert {one[0] for one in (await copies(session.client)).values()} == {3}


@pytest.mark.parametrize("there", [False, True])
def test_more_copies_than_servers_are_refused_with_the_number_of_servers_to_add(
    server: Server, command: CommandLine, there: bool
) -> None:
    where = ("--nats-url", server.url, "--allow-lazy-fsync")
    if there:
        assert command("admin", "init", *where).returncode == 0
    done = command("admin", "init", "--replicas", "3", *where)
    assert done.returncode == 1
    assert "3 copies need 3 or more NATS servers in one cluster" in done.stderr
    assert "lower" not in done.stderr
    assert "fewer" not in done.stderr
