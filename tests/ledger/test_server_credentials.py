"""Credentials of NATS for the ledger, on a server of the operator; an error is one sentence."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from app.runtime.server_options import server_options
from app.runtime.session import Session
from config.settings import Settings, SettingsError, load_settings
from ledger.errors import UnavailableError
from ledger.nats.connection_refusals import refusal_reason
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.identities import Authority, key, tls, with_operator
from tests.support.nats_servers import Server, free_ports
from tests.support.upstreams import upstream_of
from tests.support.waiting import wait_until

LOGIN = 'authorization { user: u, password: "s3cret" }'
USER: Document = {"nats_user": "u", "nats_password": "s3cret"}


def settings_for(
    server: Server | str, folder: Path, environment: dict[str, str] | None = None, **more: Any
) -> Settings:
    url = server if isinstance(server, str) else server.url
    options = {
        "data_dir": str(folder / "data"),
        "nats_url": url or None,
        "allow_lazy_fsync": True,
        "unregistered_sources": "desk",
    }
    return load_settings(options | more, environment or {})


async def works(settings: Settings) -> None:
    """Assert that a ledger is created and records a fact, by our client and by the services' broker."""
    async with Session(settings, creates=True) as session, upstream_of(session, "intake") as upstream:
        fact = event(f"p-{time.time_ns()}", "purchase.completed", order_id="O-1", total=gbp("5.00"))
        assert await upstream.record(fact) >= 1


async def refused(settings: Settings) -> str:
    """Return the error of a ledger that cannot connect, in time."""
    begun = time.monotonic()
    with pytest.raises(UnavailableError) as said:
        async with Session(settings, creates=True):
            pass
    assert time.monotonic() - begun < 8
    assert "s3cret" not in str(said.value)
    assert "\n" not in str(said.value)
    return str(said.value)


@pytest.mark.integration
async def test_user_and_password(tmp_path: Path) -> None:
    with Server(tmp_path, LOGIN) as server:
        await works(settings_for(server, tmp_path, **USER))
        await works(settings_for(f"nats://u:s3cr%65t@127.0.0.1:{server.port}", tmp_path))
        assert "refuses the user" in await refused(settings_for(server, tmp_path, **USER | {"nats_password": "no"}))
        assert "refuses the user" in await refused(settings_for(server, tmp_path))


@pytest.mark.integration
async def test_token(tmp_path: Path) -> None:
    with Server(tmp_path, 'authorization { token: "s3cret" }') as server:
        await works(settings_for(server, tmp_path, {"RESOLUTION_LEDGER_NATS_TOKEN": "s3cret"}))
        await works(settings_for(f"nats://s3cret@127.0.0.1:{server.port}", tmp_path))
        assert "refuses" in await refused(settings_for(server, tmp_path, nats_token="no"))


@pytest.mark.integration
async def test_nkey(tmp_path: Path) -> None:
    public, _, seed = key()
    (tmp_path / "seed").write_bytes(seed + b"\n")
    (tmp_path / "other").write_bytes(key()[2])
    with Server(tmp_path, f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        await works(settings_for(server, tmp_path, nats_nkey=str(tmp_path / "seed")))
        assert "refuses" in await refused(settings_for(server, tmp_path, nats_nkey=str(tmp_path / "other")))


@pytest.mark.integration
async def test_credentials_file(tmp_path: Path) -> None:
    config, credentials = with_operator(tmp_path)
    (tmp_path / "other").mkdir()
    with Server(tmp_path, config) as server:
        await works(settings_for(server, tmp_path, nats_creds=str(credentials)))
        other = with_operator(tmp_path / "other")[1]
        assert "refuses" in await refused(settings_for(server, tmp_path, nats_creds=str(other)))


@pytest.mark.integration
@pytest.mark.parametrize("first", [False, True])
async def test_tls_with_an_authority_of_ones_own(tmp_path: Path, first: bool) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    config = tls(authority.issue("server"), "handshake_first: true" if first else "") + LOGIN
    with Server(tmp_path, config) as server:
        more: Document = {"nats_tls_first": True} if first else {}
        await works(settings_for(server, tmp_path, **USER, **more, nats_tls_ca=authority.certificate))
        nothing: Document = {}
        for wrong in (nothing, {"nats_tls_ca": other.certificate}):
            said = await refused(settings_for(server, tmp_path, **USER, **more, **wrong))
            assert "certificate is not accepted" in said
            assert "tls_ca" in said


@pytest.mark.integration
async def test_mutual_tls(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    config = tls(authority.issue("server"), f'ca_file: "{authority.certificate}"\nverify: true')
    with Server(tmp_path, config) as server:
        ca: Document = {"nats_tls_ca": authority.certificate}
        cert, own_key = authority.issue("client")
        await works(settings_for(server, tmp_path, **ca, nats_tls_cert=cert, nats_tls_key=own_key))
        both = tmp_path / "both.pem"
        both.write_text(Path(cert).read_text() + Path(own_key).read_text())
        await works(settings_for(server, tmp_path, **ca, nats_tls_cert=str(both)))
        assert "client's certificate" in await refused(settings_for(server, tmp_path, **ca))
        cert, own_key = other.issue("stranger")
        said = await refused(settings_for(server, tmp_path, **ca, nats_tls_cert=cert, nats_tls_key=own_key))
        assert "client's certificate" in said


@pytest.mark.integration
async def test_nothing_goes_in_the_clear_where_tls_was_asked_for(tmp_path: Path) -> None:
    with Server(tmp_path, LOGIN) as server:
        said = await refused(settings_for(server.url.replace("nats://", "tls://"), tmp_path, **USER))
        assert "has no TLS" in said
        said = await refused(settings_for(server, tmp_path, **USER, nats_tls_ca=Authority(tmp_path).certificate))
        assert "has no TLS" in said
        said = await refused(settings_for(server, tmp_path, **USER, nats_tls_first=True))
        assert "tls_first" in said


@pytest.mark.integration
async def test_an_expired_certificate_of_the_server(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Server(tmp_path, tls(authority.issue("server", days=-1))) as server:
        assert "expired" in await refused(settings_for(server, tmp_path, nats_tls_ca=authority.certificate))


@pytest.mark.parametrize(("days", "well"), [(20, False), (22, True)])
async def test_a_certificate_that_ends_soon_is_a_finding(
    tmp_path: Path, command: CommandLine, days: int, *, well: bool
) -> None:
    authority = Authority(tmp_path)
    with Server(tmp_path / "nats", LOGIN + "\n" + tls(authority.issue("server", days))) as server:
        login = ("--nats-url", server.url.replace("nats://", "tls://u:s3cret@"), "--nats-tls-ca", authority.certificate)
        created = command("admin", "init", *login, "--allow-lazy-fsync")
        assert created.returncode == 0, created.stderr
        assert created.stderr.count("asyncio") == 0, created.stderr
        done = command("admin", "doctor", "--at-rest", "--json", *login, "--allow-lazy-fsync")
    (found,) = [one for one in json.loads(done.stdout)["items"] if one["check"] == "certificate"]
    assert found["ok"] is well
    assert ("admin certificates" in found["says"]) is not well


async def test_several_urls_of_which_the_first_is_dead(tmp_path: Path, command: CommandLine) -> None:
    dead = f"nats://127.0.0.1:{free_ports(1)[0]}"
    with Server(tmp_path, LOGIN) as server:
        await works(settings_for(f"{dead}, {server.url}", tmp_path, **USER))
        (tmp_path / "settings.toml").write_text(f'nats_url = ["{dead}", "{server.url}"]\nnats_password = "s3cret"\n')
        words = ("--config", str(tmp_path / "settings.toml"), "--nats-user", "u", "--allow-lazy-fsync")
        done = command("admin", "init", *words)
        assert done.returncode == 0, done.stderr
        urls = (dead, server.url.replace("//", "//u:s3cret@"))
        done = command("admin", "init", *(f"--nats-url={url}" for url in urls), "--allow-lazy-fsync")
        assert done.returncode == 0, done.stderr


@pytest.mark.integration
async def test_an_inbox_prefix_where_others_are_denied(tmp_path: Path) -> None:
    config = (
        'authorization { users: [ { user: u, password: "s3cret", permissions: { subscribe: { deny: "_INBOX.>" } } } ] }'
    )
    with Server(tmp_path, config) as server:
        await works(settings_for(server, tmp_path, **USER, nats_inbox_prefix="_INBOX_ledger"))
    with pytest.raises(SettingsError, match=r"nats_inbox_prefix: it begins with _"):
        server_options(settings_for(server, tmp_path, nats_inbox_prefix="inbox.>"))


@pytest.mark.integration
async def test_a_context_of_the_nats_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    authority = Authority(tmp_path)
    cert, own_key = authority.issue("client")
    config = f"{tls(authority.issue('server'), f'ca_file: {json.dumps(authority.certificate)}')} {LOGIN}"
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "RESOLUTION_LEDGER_NATS_CONTEXT": "prod"}

    def write(**found: Any) -> None:
        (folder / "prod.json").write_text(json.dumps({"description": "x", "nsc": "", "color_scheme": ""} | found))

    with Server(tmp_path, config) as server:
        found = {
            "url": server.url,
            "user": "u",
            "password": "s3cret",
            "ca": authority.certificate,
            "cert": cert,
            "key": own_key,
            "inbox_prefix": "_INBOX_ledger",
        }
        write(**found)
        await works(settings_for("", tmp_path, environment))
        write(**found | {"password": "old"})
        await works(settings_for("", tmp_path, environment, **USER))
        write(**found | {"user": "", "password": "", "token": "old"})
        await works(settings_for("", tmp_path, environment, **USER))
    for field, value in (("nsc", "nsc://o/a/u"), ("jetstream_domain", "hub"), ("user", 7), ("tls_first", "yes")):
        write(**found | {field: value})
        with pytest.raises(SettingsError, match=f"nats_context: .*prod.json has .*{field}"):
            settings_for("", tmp_path, environment)
    for text in ("{", "[]", "\ud800"):
        (folder / "prod.json").write_text(text, errors="surrogatepass")
        with pytest.raises(SettingsError, match=r"nats_context: the context .*prod\.json"):
            settings_for("", tmp_path, environment)
    with pytest.raises(SettingsError, match="nats_context: there is no context 'other'"):
        settings_for("", tmp_path, environment, nats_context="other")


def test_settings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "seed").write_bytes(key()[2])
    expired = with_operator(tmp_path, expires=1_700_000_000)[1]
    authority = Authority(tmp_path)
    cert, own_key = authority.issue("client", days=-2)
    empty, missing = str(tmp_path / "empty"), str(tmp_path / "missing")
    url = "nats://127.0.0.1"
    for options, words in (
        ({"nats_url": None, "nats_creds": empty}, "nats_creds: needs a NATS server of your own"),
        ({"nats_user": "u"}, "nats_user: it needs nats_password"),
        ({"nats_password": "s3cret"}, "nats_password: it needs nats_user"),
        ({"nats_tls_key": own_key}, "nats_tls_key: it needs nats_tls_cert"),
        (USER | {"nats_token": "s3cret"}, "nats_token: user and password and a token exclude each other"),
        ({"nats_token": "s3cret", "nats_nkey": str(tmp_path / "seed")}, "exclude each other"),
        (USER | {"nats_url": "nats://v:s3cret@h"}, "credentials in the URL and user and password exclude"),
        ({"nats_url": "nats://a:s3cret@h,nats://b:s3cret@i"}, "nats_url: its URLs contain different credentials"),
        ({"nats_url": "nats://a:s3/cret@h"}, "nats_url: the address is not valid"),
        ({"nats_url": "nats://a:s3cret@h,,"}, "nats_url: the address is not valid"),
        ({"nats_url": "ws://h"}, "nats_url: ws:// is not supported"),
        ({"nats_creds": missing}, "nats_creds: .*missing cannot be read: No such file"),
        ({"nats_creds": empty}, "nats_creds: .*empty is not a credentials file"),
        ({"nats_creds": str(tmp_path)}, "nats_creds: .* cannot be read: Is a directory"),
        ({"nats_creds": str(expired)}, "nats_creds: the credentials in .* expired on 2023-11-14"),
        ({"nats_nkey": str(expired)}, "nats_nkey: .*user.creds holds no user seed"),
        ({"nats_tls_ca": missing}, "nats_tls_ca: .*missing cannot be read"),
        ({"nats_tls_ca": empty}, "nats_tls_ca: .*empty holds no certificate"),
        ({"nats_tls_cert": cert, "nats_tls_key": empty}, "nats_tls_cert: .* are no certificate with its key"),
        ({"nats_tls_cert": cert, "nats_tls_key": own_key}, "nats_tls_cert: the certificate in .*client.pem expired on"),
    ):
        with pytest.raises(SettingsError, match=words) as said:
            server_options(load_settings({"nats_url": url, **options}, {}))
        assert "s3cret" not in str(said.value)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("nats: 'Authorization Violation'", "it refuses the user"),
        ("nats: 'User Authentication Expired'", "the credentials have expired"),
        ("nats: 'Account Authentication Expired'", "the account has expired"),
        ("nats: maximum connections exceeded", "the server's limit"),
        ("nats: 'permissions violation for publish to \"authorization violation\"'", ""),
        ("nats: 'user authentication timeout'", ""),
    ],
)
def test_only_a_whole_message_of_the_server_is_a_refusal(text: str, begins: str) -> None:
    """A subject is a part of some messages, and a sender chooses its words."""
    reason = refusal_reason(nats.errors.Error(text))
    assert reason.startswith(begins) if begins else reason == ""


def test_credentials_come_from_one_setting(tmp_path: Path) -> None:
    """An operator's command overrides the ledger's user of its environment."""
    own = {
        "RESOLUTION_LEDGER_NATS_URL": "nats://h",
        "RESOLUTION_LEDGER_NATS_USER": "ledger",
        "RESOLUTION_LEDGER_NATS_PASSWORD": "s3cret",
    }
    (tmp_path / "seed").write_bytes(key()[2])
    seed = str(tmp_path / "seed")
    cases: list[tuple[Document, dict[str, str], tuple[Any, ...]]] = [
        ({}, own, ("h:4222", "ledger", "s3cret", None)),
        ({"nats_url": "nats://operator:o@h"}, own, ("h:4222", "operator", "o", None)),
        ({"nats_user": "operator"}, own, ("h:4222", "operator", "s3cret", None)),
        ({"nats_nkey": seed}, own, ("h:4222", None, None, seed)),
        ({"nats_nkey": seed}, {"RESOLUTION_LEDGER_NATS_URL": "nats://a:b@h,c:d@i:1"}, ("h:4222,i:1", None, None, seed)),
    ]
    for options, environment, expected in cases:
        found = server_options(load_settings(options, environment))
        assert found is not None
        assert (str(found), found.user, found.password, found.nkey) == expected


def test_no_secret_is_shown() -> None:
    for options in (USER, {"nats_token": "s3cret"}, {"nats_url": "nats://u:s3cret@h"}):
        settings = load_settings({"nats_url": "nats://h"} | options, {})
        for shown in (repr(settings), repr(server_options(settings)), str(server_options(settings))):
            assert "s3cret" not in shown


def test_the_command_line_says_it_in_one_sentence(tmp_path: Path, command: CommandLine) -> None:
    with Server(tmp_path, LOGIN) as server:
        done = command("admin", "init", "--nats-url", server.url.replace("//", "//u:wrong@"))
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert "refuses the user and password" in done.stderr
        done = command("run", "guard", "--nats-url", server.url, "--nats-creds", str(tmp_path / "missing"))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "nats_creds" in done.stderr


@pytest.mark.integration
async def test_files_are_replaced_while_a_connection_lives(tmp_path: Path) -> None:
    config, credentials = with_operator(tmp_path)
    old, new = Authority(tmp_path), Authority(tmp_path, "new")
    authority, good = tmp_path / "authority.pem", credentials.read_bytes()
    authority.write_bytes(Path(old.certificate).read_bytes())
    with Server(tmp_path, tls(old.issue("server")) + config) as server:
        settings = settings_for(server, tmp_path, nats_creds=str(credentials), nats_tls_ca=str(authority))
        async with Session(settings, creates=True) as session:
            server.stop()
            new.issue("server")
            credentials.write_bytes(good[:200])
            authority.write_text("")
            server.start()
            await asyncio.sleep(1)
            assert session.client.is_reconnecting
            authority.write_bytes(Path(new.certificate).read_bytes())
            await asyncio.sleep(0.5)
            credentials.write_bytes(good)
            await wait_until(lambda: session.client.is_connected)
            assert await session.log.last_position() == 0
