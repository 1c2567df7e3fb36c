"""Ways to prove to a NATS server who one is, each against a server that demands it."""

import base64
import json
import os
import subprocess
from pathlib import Path
from uuid import UUID

import nkeys
import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import OperationalError
from nats_servers import Server

from ledger.persistence import JetStreamFactory

UNLIMITED = {
    "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1,
    "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
}  # fmt: skip


def may_save(server: Server, **settings: str) -> None:
    """An application with these settings saves and reads."""
    env = {"PERSISTENCE_MODULE": "ledger.persistence", "NATS_URL": server.url, "NATS_TIMEOUT": "3"} | settings
    with Application[UUID](env) as app:
        aggregate = Aggregate()
        app.save(aggregate)
        assert app.repository.get(aggregate.id) == aggregate


def may_not(server: Server, **settings: str) -> None:
    """The server turns them away, and the application says so in time."""
    factory = JetStreamFactory({"NATS_URL": server.url, "NATS_TIMEOUT": "1"} | settings)
    with pytest.raises(OperationalError, match="no NATS server answers"):
        factory.application_recorder()
    factory.close()


def test_user_and_password(tmp_path: Path) -> None:
    with Server(tmp_path, 'authorization { user: u, password: "s3cret" }') as server:
        may_save(server, NATS_USER="u", NATS_PASSWORD="s3cret")
        may_save(server, NATS_URL=server.url.replace("//", "//u:s3cret@"))
        may_not(server, NATS_USER="u", NATS_PASSWORD="wrong")
        may_not(server)


def test_token(tmp_path: Path) -> None:
    with Server(tmp_path, 'authorization { token: "t0ken" }') as server:
        may_save(server, NATS_TOKEN="t0ken")
        may_not(server, NATS_TOKEN="wrong")


def key(prefix: int) -> tuple[str, nkeys.KeyPair, bytes]:
    """A new pair of keys: its public key, itself, its seed."""
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    pair = nkeys.from_seed(bytearray(seed))
    return pair.public_key.decode(), pair, bytes(seed)


def token_of(issuer: tuple[str, nkeys.KeyPair, bytes], subject: str, nats: dict[str, object]) -> str:
    """A JWT as nats-server takes it."""
    claims = {"jti": "x", "iat": 0, "iss": issuer[0], "name": "test", "sub": subject, "nats": nats | {"version": 2}}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)
    ]
    signature = base64.urlsafe_b64encode(issuer[1].sign(b".".join(parts))).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


def test_a_credentials_file(tmp_path: Path) -> None:
    operator, account, user = (
        key(nkeys.PREFIX_BYTE_OPERATOR),
        key(nkeys.PREFIX_BYTE_ACCOUNT),
        key(nkeys.PREFIX_BYTE_USER),
    )
    account_jwt = token_of(operator, account[0], {"type": "account", "limits": UNLIMITED})
    system = key(nkeys.PREFIX_BYTE_ACCOUNT)
    config = f"""
        operator: {token_of(operator, operator[0], {"type": "operator"})}
        resolver: MEMORY
        system_account: {system[0]}
        resolver_preload: {{
          {account[0]}: {account_jwt}
          {system[0]}: {token_of(operator, system[0], {"type": "account"})}
        }}
    """
    credentials = tmp_path / "user.creds"
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token_of(account, user[0], {'type': 'user', 'subs': -1, 'data': -1, 'payload': -1})}\n"
        f"------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{user[2].decode()}\n------END USER NKEY SEED------\n"
    )
    with Server(tmp_path, config) as server:
        may_save(server, NATS_CREDENTIALS=str(credentials))
        may_not(server)


def test_tls(tmp_path: Path) -> None:
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
    ]  # fmt: skip
    try:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl, which makes the certificate, is not here")
    with Server(tmp_path, f'tls {{ cert_file: "{tmp_path}/cert.pem", key_file: "{tmp_path}/key.pem" }}') as server:
        url = server.url.replace("nats://", "tls://")
        may_save(server, NATS_URL=url, NATS_TLS_CA=str(tmp_path / "cert.pem"))
        may_not(server, NATS_URL=url)
