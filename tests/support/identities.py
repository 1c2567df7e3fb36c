"""Credentials for NATS servers: keys and JWTs of an operator, an account and a user; a certificate authority."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
from pathlib import Path

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

type Key = tuple[str, nkeys.KeyPair, bytes]
UNLIMITED = {
    "subs": -1,
    "data": -1,
    "payload": -1,
    "imports": -1,
    "exports": -1,
    "wildcards": True,
    "conn": -1,
    "leaf": -1,
    "mem_storage": -1,
    "disk_storage": -1,
    "streams": -1,
    "consumer": -1,
}


def key(prefix: int = nkeys.PREFIX_BYTE_USER) -> Key:
    """Return a new pair of keys: (public key, pair, seed)."""
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    pair = nkeys.from_seed(bytearray(seed))
    return pair.public_key.decode(), pair, bytes(seed)


def jwt_of(issuer: Key, subject: str, nats: dict[str, object], expires: int = 0) -> str:
    """Return a JWT in the form of nats-server."""
    claims = {"jti": "x", "iat": 0, "iss": issuer[0], "name": "test", "sub": subject, "nats": nats | {"version": 2}}
    claims |= {"exp": expires} if expires else {}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)
    ]
    signature = base64.urlsafe_b64encode(issuer[1].sign(b".".join(parts))).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


def with_operator(folder: Path, expires: int = 0) -> tuple[str, Path]:
    """Return a server's configuration with an operator and an account, and the credentials file of a user."""
    operator, account, system, user = (
        key(nkeys.PREFIX_BYTE_OPERATOR),
        key(nkeys.PREFIX_BYTE_ACCOUNT),
        key(nkeys.PREFIX_BYTE_ACCOUNT),
        key(),
    )
    config = f"""
        operator: {jwt_of(operator, operator[0], {"type": "operator"})}
        resolver: MEMORY
        system_account: {system[0]}
        resolver_preload: {{
          {account[0]}: {jwt_of(operator, account[0], {"type": "account", "limits": UNLIMITED})}
          {system[0]}: {jwt_of(operator, system[0], {"type": "account"})}
        }}
    """
    claims = {"type": "user", "subs": -1, "data": -1, "payload": -1}
    credentials = folder / "user.creds"
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt_of(account, user[0], claims, expires)}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user[2].decode()}\n------END USER NKEY SEED------\n"
    )
    return config, credentials


class Authority:
    """A certificate authority of a company's own."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = str(folder / f"{name}.pem")
        builder = self._builder(self._name, self._key, 1).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self._write(self.certificate, builder)

    def issue(self, name: str, days: int = 1) -> tuple[str, str]:
        """Issue a certificate of a server or a client at 127.0.0.1; return its path and that of its key."""
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        path, key_path = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        self._write(str(path), self._builder(subject, own, days).add_extension(address, critical=False))
        key_path.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(path), str(key_path)

    def _builder(self, subject: x509.Name, own: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=9))
            .not_valid_after(now + dt.timedelta(days=days))
        )

    def _write(self, path: str, builder: x509.CertificateBuilder) -> None:
        signed = builder.sign(self._key, hashes.SHA256())
        Path(path).write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def tls(server: tuple[str, str], more: str = "") -> str:
    """Return a server's configuration with this certificate and key."""
    return f'tls {{ cert_file: "{server[0]}", key_file: "{server[1]}"\n{more} }}\n'
