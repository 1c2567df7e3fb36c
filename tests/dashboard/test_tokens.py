"""Tokens in the server's bucket: hashes alone, valid at every dashboard, revoked everywhere within a second or two."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from dashboard.auth import tokens as tokens_module
from dashboard.auth.tokens import TokenError, Tokens, digest_of
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from ledger.errors import UnavailableError
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api
from tests.support.forked_cli import CommandLine
from tests.support.http_api import client_with_token
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.integration


async def bucket_of(session: Session) -> Log:
    return await Log.unstamped(session.client, topology.TOKENS)


@asynccontextmanager
async def dashboards(session: Session, folder: Path) -> AsyncIterator[list[str]]:
    """Serve the API from two data directories, as on two machines; yield the addresses."""
    settings = load_settings({"data_dir": str(folder / "other"), "nats_url": session.url, "allow_lazy_fsync": True}, {})
    async with Session(settings) as other:
        found = [await stack_of(one, ["dashboard"]) for one in (session, other)]
        yield [address for address, _ in found]
        for _, end in found:
            await end()


async def stack_of(session: Session, roles: list[str]) -> tuple[str, Any]:
    context = running(session, roles, where=ListenAddress(port=0))
    services = await context.__aenter__()
    (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
    return dashboard.address, partial(context.__aexit__, None, None, None)


async def suspend(process: int) -> None:
    """Suspend a process, and wait until it is: its threads stop one after the other."""
    os.kill(process, signal.SIGSTOP)

    def states() -> set[str]:
        return {path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{process}/task").glob("*/stat")}

    await wait_until(lambda: states() == {"T"})


async def status(address: str, token: str) -> int:
    async with client_with_token(address, token) as client:
        return (await client.get("/schemas")).status_code  # it needs no view


async def test_a_token_is_hashed_named_once_and_ends(session: Session) -> None:
    tokens = Tokens(session.client)
    text = await tokens.make("x", "auditor", None, datetime.now(UTC) + timedelta(days=1))
    kept = [one.data for one in await (await bucket_of(session)).read_subject(">")]
    assert len(kept) == 1
    assert text.encode() not in kept[0]
    found = await Tokens(session.client).bearer_of(digest_of(text))
    assert found == ("x", "auditor", None, None)
    for role, person in (("agent", None), ("auditor", "A-1")):
        with pytest.raises(TokenError, match="person"):
            await tokens.make("y", role, person, None)  # type: ignore[arg-type]
    with pytest.raises(TokenError, match="source"):
        await tokens.make("y", "source", None, None)
    with pytest.raises(TokenError, match="a token named x exists"):
        await Tokens(session.client).make("x", "auditor", None, None)
    over = await tokens.make("over", "auditor", None, datetime.now(UTC) - timedelta(seconds=1))
    assert await tokens.bearer_of(digest_of(over)) is None
    await tokens.revoke("x")
    assert await tokens.bearer_of(digest_of(text)) is None
    with pytest.raises(TokenError, match="no token"):
        await tokens.revoke("x")
    assert [one.name for one in await Tokens(session.client).all()] == ["over"]


async def test_a_known_token_costs_one_look_a_second(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(session.client)
    digest = digest_of(await tokens.make("x", "auditor", None, None))
    await tokens.bearer_of(digest)
    asked = 0
    read = Log.read_from_leader

    async def counted(log: Log, *others: Any) -> Any:
        nonlocal asked
        asked += 1
        return await read(log, *others)

    monkeypatch.setattr(Log, "read_from_leader", counted)
    for _ in range(200):
        assert await tokens.bearer_of(digest)
    assert asked <= 2
    tokens._read_at -= 2 * tokens_module._CACHE_SECONDS
    asked = 0
    assert all(await asyncio.gather(*(tokens.bearer_of(digest) for _ in range(50))))
    assert asked <= 2  # one of them meets the new token


async def test_every_dashboard_knows_a_token_at_once_and_forgets_it_within_two_seconds(
    session: Session, tmp_path: Path
) -> None:
    tokens = Tokens(session.client)
    async with dashboards(session, tmp_path) as addresses:
        for number in range(3):
            text = await tokens.make(f"t-{number}", "operator", None, None)
            assert [await status(one, text) for one in addresses] == [200, 200]
            await tokens.revoke(f"t-{number}")
            await asyncio.sleep(0.5)  # a message tells it; a second without one would do
            assert [await status(one, text) for one in addresses] == [401, 401]


async def test_damaged_and_hostile_entries_admit_nobody_and_stop_nothing(session: Session) -> None:
    """Each replaces a valid token, or stands beside it; the others stay valid."""
    tokens = Tokens(session.client)
    texts = [await tokens.make(f"t-{number}", "operator", None, None) for number in range(2)]
    stays, damaged = map(digest_of, texts)
    log = await bucket_of(session)
    fields = {"name": "n", "made": "2026-01-01T00:00:00Z"}
    bodies = [
        *(b"\xff", b"[", b"null", b"[]", b"{}", b"[" * 30_000, b'{"name": 1}'),
        json.dumps(fields | {"role": "root"}).encode(),
        json.dumps(fields | {"role": "agent"}).encode(),  # of no person: it would see nobody's data as everybody's
        json.dumps(fields | {"role": "operator", "person_id": "A-1"}).encode(),
        json.dumps(fields | {"role": "source"}).encode(),
        json.dumps(fields | {"role": "operator", "expires": "soon"}).encode(),
        json.dumps(fields | {"role": "operator", "expires": "2999-01-01T00:00:00"}).encode(),  # in no time zone
        json.dumps(fields | {"role": "operator", "made": "2026-01-01T00:00:00"}).encode(),
    ]
    for body in bodies:
        for reader in (tokens, Tokens(session.client)):
            await log.append([Draft(f"{topology.TOKENS_SUBJECT}.{damaged}", body)])
            reader._read_at = float("-inf")
            assert await reader.bearer_of(damaged) is None, body
            assert await reader.bearer_of(stays) is not None, body
    for subject in ("short", "A" * 64, "a.b"):
        await log.append(
            [Draft(f"{topology.TOKENS_SUBJECT}.{subject}", json.dumps(fields | {"role": "operator"}).encode())]
        )
    assert [one.name for one in await Tokens(session.client).all()] == ["t-0"]


async def test_tokens_of_an_earlier_version_are_taken_over_once(session: Session, tmp_path: Path) -> None:
    kept = [
        {
            "name": f"t-{number}",
            "role": "operator",
            "sha256": digest_of(f"text-{number}"),
            "made": "2026-01-01T00:00:00Z",
        }
        for number in range(3)
    ]
    file = session.data_dir / "server" / "tokens.json"
    file.write_text(json.dumps(kept))
    await asyncio.gather(*(Tokens(session.client).take_over(session.data_dir) for _ in range(3)))
    assert not file.exists()
    assert file.with_name("tokens.json.taken-over").exists()
    tokens = Tokens(session.client)
    assert [(await tokens.bearer_of(digest_of(f"text-{number}")) or [None])[0] for number in range(4)] == [
        *("t-0", "t-1", "t-2"),
        None,
    ]
    await tokens.revoke("t-1")
    file.write_text(json.dumps(kept))  # of a backup, or a process that was killed before it renamed the file
    await Tokens(session.client).take_over(session.data_dir)
    assert [one.name for one in await Tokens(session.client).all()] == ["t-0", "t-2"]
    for text in (
        '[{"name": 1}]',
        "[",
        json.dumps([kept[0] | {"sha256": "x.>"}]),
        json.dumps([kept[0] | {"role": "agent"}]),
    ):
        file.write_text(text)
        with pytest.raises(TokenError, match=r"tokens\.json is damaged"):
            await Tokens(session.client).take_over(session.data_dir)


async def test_tokens_stay_valid_through_an_election_and_end_with_a_clear_answer_without_a_server(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(session.client)
    await tokens.watch()
    text = await tokens.make("x", "auditor", None, None)
    digest = digest_of(text)
    assert await tokens.bearer_of(digest)
    assert session._server is not None
    told = tokens._changes
    await Tokens(session.client).make("y", "auditor", None, None)  # the message about it asks for a reading
    await wait_until(lambda: tokens._changes > told)
    server = session._server.pid()
    assert server is not None
    monkeypatch.setattr(tokens_module, "_PATIENCE_SECONDS", 0.5)
    await suspend(server)
    try:
        tokens._read_at -= tokens_module._STALE_SECONDS / 2
        assert await tokens.bearer_of(digest)
        with pytest.raises(UnavailableError, match="does not answer about tokens"):
            await tokens.bearer_of(digest_of("unknown"))
        tokens._read_at -= tokens_module._STALE_SECONDS
        with pytest.raises(UnavailableError, match="does not answer about tokens"):
            await tokens.bearer_of(digest)
    finally:
        os.kill(server, signal.SIGCONT)
    assert await eventually(partial(tokens.bearer_of, digest), passing=(UnavailableError,))


async def test_a_backup_of_tokens_brings_none_back_that_was_revoked(session: Session, tmp_path: Path) -> None:
    tokens = Tokens(session.client)
    texts = [await tokens.make(f"t-{number}", "operator", None, None) for number in range(2)]
    file = tmp_path / "tokens"
    file.write_bytes(msgspec.json.encode(await tokens.backup()))
    await tokens.revoke("t-0")
    assert await tokens.restore(tokens_module.tokens_in(file)) == 0
    settings = load_settings({"data_dir": str(tmp_path / "fresh")}, {})
    async with Session(settings) as fresh:
        other = Tokens(fresh.client)
        assert await other.restore(tokens_module.tokens_in(file)) == 2
        assert await other.bearer_of(digest_of(texts[0])) is not None


def test_the_commands(command: CommandLine, tmp_path: Path) -> None:
    made = command("admin", "tokens", "make", "board", "--role", "manager", "--person", "M-1", "--days", "7", "--json")
    token = json.loads(made.stdout)["token"]
    assert token.startswith("rl-manager-")
    assert command("admin", "tokens", "make", "board", "--role", "auditor").returncode == 2
    listed = command("admin", "tokens", "list")
    assert "board" in listed.stdout
    assert token not in listed.stdout
    assert command("admin", "tokens", "make", "m", "--role", "auditor").stdout.strip().startswith("rl-auditor-")
    file = tmp_path / "tokens.backup"
    assert json.loads(command("admin", "tokens", "backup", str(file), "--json").stdout) == {"tokens": 2}
    assert file.stat().st_mode & 0o77 == 0
    assert digest_of(token) in file.read_text()
    assert "revoked" in command("admin", "tokens", "revoke", "board").stdout
    assert "0 of 2" in command("admin", "tokens", "restore", str(file)).stdout
    assert [one["name"] for one in json.loads(command("admin", "tokens", "list", "--json").stdout)["items"]] == ["m"]


async def test_a_browser_and_a_token_have_a_clear_answer_while_the_server_is_away(session: Session) -> None:
    tokens = Tokens(session.client)
    text = await tokens.make("x", "auditor", None, None)
    address, end = await stack_of(session, ["dashboard"])
    async with httpx.AsyncClient(base_url=address, timeout=20) as client:
        headers = {"Authorization": f"Bearer {text}"}
        assert (await client.get("/schemas", headers=headers)).status_code == 200
        assert session._server is not None
        server = session._server.pid()
        assert server is not None
        await suspend(server)
        try:
            unknown = await client.get("/schemas", headers={"Authorization": "Bearer unknown"})
        finally:
            os.kill(server, signal.SIGCONT)
        assert (unknown.status_code, unknown.headers["Retry-After"]) == (503, "1")
        assert "tokens" in unknown.json()["detail"]
    await end()


async def test_a_revocation_counts_within_a_second_where_its_message_is_lost(session: Session) -> None:
    tokens, other = Tokens(session.client), Tokens(session.client)
    digest = digest_of(await tokens.make("x", "operator", None, None))
    assert await other.bearer_of(digest)
    await tokens.revoke("x")
    begun = time.monotonic()
    await eventually(partial(other.bearer_of, digest), lambda found: found is None, every_seconds=0.02)
    assert time.monotonic() - begun < tokens_module._CACHE_SECONDS + 0.5


async def test_a_bucket_that_was_purged_and_filled_anew_is_read_from_its_beginning(session: Session) -> None:
    """An operator may do that with a tool of NATS, which leaves no entry for what is gone."""
    tokens = Tokens(session.client)
    gone = [digest_of(await tokens.make(f"t-{number}", "operator", None, None)) for number in range(3)]
    assert all([await tokens.bearer_of(one) for one in gone])
    wanted = next(one for one in topology.stream_configs() if one["name"] == topology.TOKENS)
    operator = await session.connection("operator", user="operator")
    await js_api(operator, f"STREAM.DELETE.{topology.TOKENS}")
    await js_api(operator, f"STREAM.CREATE.{topology.TOKENS}", wanted)
    new = await Tokens(session.client).make("new", "operator", None, None)
    assert await tokens.bearer_of(digest_of(new))
    tokens._read_at = tokens._whole_at = float("-inf")  # a minute later
    assert [await tokens.bearer_of(one) for one in gone] == [None] * 3
    assert await tokens.bearer_of(digest_of(new))


async def test_a_token_of_a_bucket_that_was_filled_anew_is_revoked_as_soon_as_others(session: Session) -> None:
    tokens, other = Tokens(session.client), Tokens(session.client)
    for number in range(3):
        await tokens.make(f"t-{number}", "operator", None, None)
    wanted = next(one for one in topology.stream_configs() if one["name"] == topology.TOKENS)
    operator = await session.connection("operator", user="operator")
    await js_api(operator, f"STREAM.DELETE.{topology.TOKENS}")
    await js_api(operator, f"STREAM.CREATE.{topology.TOKENS}", wanted)
    new = digest_of(await other.make("new", "operator", None, None))
    assert await tokens.bearer_of(new)
    await other.revoke("new")
    await asyncio.sleep(tokens_module._CACHE_SECONDS)
    await eventually(partial(tokens.bearer_of, new), lambda found: found is None, timeout_seconds=1)


async def test_a_bucket_that_takes_longer_than_a_request_is_read_beside_the_requests(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, log = Tokens(session.client), await bucket_of(session)
    revoked = [Draft(f"{topology.TOKENS_SUBJECT}.{digest_of(str(number))}", b"") for number in range(1000)]
    await log.append(revoked)
    digest = digest_of(await Tokens(session.client).make("x", "operator", None, None))
    read = Log.subject_batches

    async def slow(log: Log, subject: str) -> AsyncIterator[Any]:
        async for batch in read(log, subject):
            await asyncio.sleep(0.3)
            yield batch

    monkeypatch.setattr(Log, "subject_batches", slow)
    monkeypatch.setattr(tokens_module, "_WAIT_SECONDS", 0.1)
    assert await eventually(partial(tokens.bearer_of, digest), passing=(UnavailableError,))
    tokens._whole_at = float("-inf")  # a minute later
    tokens._read_at -= 2 * tokens_module._CACHE_SECONDS
    begun = time.monotonic()
    assert await tokens.bearer_of(digest)
    assert time.monotonic() - begun < 0.1
    assert time.monotonic() - tokens._read_at < 1  # the changes were read
    await wait_until(lambda: tokens._whole_at > begun)
