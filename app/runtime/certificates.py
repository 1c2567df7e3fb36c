"""Certificates for TLS between NATS servers and with their clients, from an authority of the operator's own.

The authority's key signs nothing else, and only this module uses it. Each server's certificate is one for a server and
for a client, because servers of a cluster connect to each other.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ledger.errors import LedgerError
from ledger.files import write_atomically, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

AUTHORITY = "ca.pem"
_AUTHORITY_KEY = "ca-key.pem"
_AUTHORITY_DAYS = 3650
_CLOCK_SKEW = timedelta(hours=1)
"""A server whose clock is this much behind accepts a new certificate."""
_RENEWED_SHARE = 1 / 3
"""A certificate with less than this share of its validity left is made anew."""
_FILE_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_HOST_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


class MadeCertificate(NamedTuple):
    """A certificate after the command: its file, names and end, and ``made`` or ``renewed``, empty if it was kept."""

    file: str
    names: tuple[str, ...]
    expires: datetime
    done: str


class _Authority(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificates(
    folder: Path, servers: Sequence[Sequence[str]], days: int, into: Mapping[str, Path] | None = None
) -> list[MadeCertificate]:
    """Make the authority `ca.pem` and, for each server, `NAME.pem` with `NAME-key.pem`, where they are missing.

    A server is a list of its names: DNS names and IP addresses. The first one names its files. A certificate is made
    anew if it has other names or another authority, does not fit its key, or has a third of its validity left. Keys are
    readable by their owner only. ``into`` has the folders of servers whose files are in another folder than the
    authority's; their keys are readable by that folder's group, too.

    Raises:
        LedgerError: a name cannot be used, or the authority's files do not belong together.
        OSError: a file cannot be written.
    """
    for names in servers:
        _check_names(names)
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    authority, done = _authority(folder, now)
    found = [MadeCertificate(AUTHORITY, (), authority.certificate.not_valid_after_utc, done)]
    for names in servers:
        own = (into or {}).get(names[0])
        path = (own or folder) / f"{names[0]}.pem"
        key_path = path.with_name(f"{names[0]}-key.pem")
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = _usable(path, key_path, names, authority, now)
        done = "" if kept is not None else "renewed" if path.exists() else "made"
        if kept is None:
            key = ec.generate_private_key(ec.SECP256R1())
            kept = _issued(names, key, authority, now, days)
            _write_key(key_path, key)  # first: a certificate that does not fit its key is made anew
            if own is not None:
                key_path.chmod(0o640)
            write_atomically(path, kept.public_bytes(Encoding.PEM))
        found.append(MadeCertificate(path.name, tuple(names), kept.not_valid_after_utc, done))
    return found


def _check_names(names: Sequence[str]) -> None:
    if not names or not _FILE_NAME.fullmatch(names[0]) or names[0] == "ca":
        raise LedgerError(f"the server {','.join(names)!r} needs a first name that can be a file's, such as nats-1")
    for name in names:
        if _address_in(name) is None and not _HOST_NAME.fullmatch(name):
            raise LedgerError(f"{name!r} is neither a DNS name nor an IP address")


def _address_in(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _authority(folder: Path, now: datetime) -> tuple[_Authority, str]:
    """Return the authority and ``made`` if it is new; an interrupted command's key gets its certificate."""
    path, key_path = folder / AUTHORITY, folder / _AUTHORITY_KEY
    if not key_path.exists():
        if path.exists():
            raise LedgerError(f"{path} exists without {key_path.name}: bring that back, or name an empty folder")
        _write_key(key_path, ec.generate_private_key(ec.SECP256R1()))
    try:
        key = load_pem_private_key(key_path.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(path.read_bytes()) if path.exists() else None
    except (ValueError, TypeError) as error:
        raise LedgerError(f"{path} and {key_path.name} cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (
        certificate and certificate.public_key() != key.public_key()
    ):
        raise LedgerError(f"{key_path} is not the key of {path.name}: bring the right one back")
    if certificate is None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Resolution Ledger")])
        builder = _builder(name, name, key, now, now + timedelta(days=_AUTHORITY_DAYS))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.add_extension(_usage(signs=True), critical=True).sign(key, hashes.SHA256())
        write_atomically(path, certificate.public_bytes(Encoding.PEM))
        return _Authority(certificate, key), "made"
    if certificate.not_valid_after_utc <= now:
        expired = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        raise LedgerError(f"{path} expired on {expired}: name an empty folder, and give clients the new {AUTHORITY}")
    return _Authority(certificate, key), ""


def _usable(
    path: Path, key_path: Path, names: Sequence[str], authority: _Authority, now: datetime
) -> x509.Certificate | None:
    """Return the certificate in a file if it fits its key, the names and the authority, and lasts long enough."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        key = load_pem_private_key(key_path.read_bytes(), None)
        found.verify_directly_issued_by(authority.certificate)
        alternative = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    begin, end = found.not_valid_before_utc, found.not_valid_after_utc
    lasts = end - now > _RENEWED_SHARE * (end - begin)
    fits = found.public_key() == key.public_key() and list(alternative) == _general_names(names)
    return found if fits and lasts else None


def _issued(
    names: Sequence[str], key: ec.EllipticCurvePrivateKey, authority: _Authority, now: datetime, days: int
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    end = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = _builder(subject, authority.certificate.subject, key, now, end)
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs=False), True),
        (both, False),
        (signer, False),
        (x509.SubjectAlternativeName(_general_names(names)), False),
    ):
        builder = builder.add_extension(extension, critical)
    return builder.sign(authority.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Return the uses of a key: that of the authority signs certificates, that of a server identifies the server."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    return [x509.DNSName(name) if (address := _address_in(name)) is None else x509.IPAddress(address) for name in names]


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
