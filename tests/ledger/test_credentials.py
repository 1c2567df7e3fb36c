"""Credentials of NATS for the `eventsourcing` module, each against a server that demands it."""

from pathlib import Path
from uuid import UUID

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import OperationalError

from ledger.persistence import JetStreamFactory
from tests.support.identities import Authority, key, tls, with_operator
from tests.support.nats_servers import Server


def may_save(server: Server, **settings: str) -> None:
    """Assert that an application with these settings saves and reads."""
    env = {"PERSISTENCE_MODULE": "ledger.persistence", "NATS_URL": server.url, "NATS_TIMEOUT": "3"} | settings
    with Application[UUID](env) as app:
        aggregate = Aggregate()
        app.save(aggregate)
        assert app.repository.get(aggregate.id) == aggregate


def may_not(server: Server, **settings: str) -> None:
    """Assert that the server refuses these settings, and the application reports it in time."""
    factory = JetStreamFactory({"NATS_URL": server.url, "NATS_TIMEOUT": "1"} | settings)
    with pytest.raises(OperationalError, match="cannot be used"):
        factory.application_recorder()
    factory.close()


@pytest.mark.integration
def test_user_and_password(tmp_path: Path) -> None:
    with Server(tmp_path, 'authorization { user: u, password: "s3cret" }') as server:
        may_save(server, NATS_USER="u", NATS_PASSWORD="s3cret")
        may_save(server, NATS_URL=server.url.replace("//", "//u:s3cret@"))
        may_not(server, NATS_USER="u", NATS_PASSWORD="wrong")
        may_not(server)


@pytest.mark.integration
def test_token(tmp_path: Path) -> None:
    with Server(tmp_path, 'authorization { token: "t0ken" }') as server:
        may_save(server, NATS_TOKEN="t0ken")
        may_not(server, NATS_TOKEN="wrong")


@pytest.mark.integration
def test_an_nkey(tmp_path: Path) -> None:
    public, _, seed = key()
    (tmp_path / "seed").write_bytes(seed)
    with Server(tmp_path, f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        may_save(server, NATS_NKEY=str(tmp_path / "seed"))
        may_not(server)


@pytest.mark.integration
def test_a_credentials_file(tmp_path: Path) -> None:
    config, credentials = with_operator(tmp_path)
    with Server(tmp_path, config) as server:
        may_save(server, NATS_CREDENTIALS=str(credentials))
        may_not(server)


@pytest.mark.integration
def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Server(tmp_path, tls(authority.issue("server"))) as server:
        url = server.url.replace("nats://", "tls://")
        may_save(server, NATS_URL=url, NATS_TLS_CA=authority.certificate, NATS_INBOX_PREFIX="_INBOX_es")
        may_not(server, NATS_URL=url)


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    for settings, words in (
        ({"NATS_TOKEN": "t", "NATS_USER": "u", "NATS_PASSWORD": "p"}, "exclude each other"),
        ({"NATS_CREDENTIALS": str(tmp_path / "missing")}, "NATS_CREDENTIALS: .* cannot be read"),
        ({"NATS_URL": "nats://a:b@c:d"}, "NATS_URL: the address is not valid"),
    ):
        with pytest.raises(OSError, match=words):
            JetStreamFactory({"NATS_URL": "nats://h"} | settings)
