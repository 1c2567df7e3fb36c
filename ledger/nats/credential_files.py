"""Checks of the credential files of a NATS client at the start, so that an error names the file.

nats-py and the TLS context read the files again at each connection, so that they may be replaced while a process runs.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import ssl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import nkeys
from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterator

_JWT = re.compile(rb"-+BEGIN NATS USER JWT-+\s+([\w.-]+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(rb"-+BEGIN USER NKEY SEED-+\s+(\w+)\s+-+END USER NKEY SEED-+")


def check_credentials(path: str) -> None:
    """Check a ``.creds`` file: a user's JWT that has not expired, and its seed.

    Raises:
        ValueError: the file is not valid; the message gives the reason.
    """
    content = _read(path)
    jwt, seed = _JWT.search(content), _SEED.search(content)
    if jwt is None or seed is None:
        message = (
            f"{path} is not a credentials file: it needs a user's JWT and seed, as `nsc generate creds` writes them"
        )
        raise ValueError(message)
    _check_seed(seed[1], path)
    try:
        part = jwt[1].split(b".")[1]
        expires = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))).get("exp", 0)
        end = dt.datetime.fromtimestamp(expires, dt.UTC) if expires else None
    except (ValueError, IndexError, AttributeError, TypeError, OverflowError, OSError):
        raise ValueError(f"the JWT in {path} cannot be read: generate the file again") from None
    _check_expiry(end, path, "credentials")


def check_seed(path: str) -> None:
    """Check a file that holds only a user's nkey seed.

    Raises:
        ValueError: the file is not valid; the message gives the reason.
    """
    _check_seed(_read(path).strip(), path)


def _check_seed(seed: bytes, path: str) -> None:
    try:
        fits = seed.startswith(b"SU") and nkeys.from_seed(bytearray(seed)) is not None
    except Exception:  # noqa: BLE001 - nkeys raises errors of many kinds
        fits = False
    if not fits:
        raise ValueError(f"{path} holds no user seed: a line that begins with SU, as `nk -gen user` writes it")


def tls_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    """Return a TLS context with the system's authorities or ``ca``, and with or without a client's certificate.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file holds no certificate or no key, or the certificate has expired.
    """
    if ca is None:
        context = ssl.create_default_context()
    else:
        content = _read(ca)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts only the named authority
        with _value_errors(f"{ca} holds no certificate (PEM)"):
            context.load_verify_locations(cadata=content.decode("ascii"))
    if cert is not None:
        content = _read(cert)
        if key is not None:
            _read(key)
        with _value_errors(
            f"{cert} and {key or 'the key in it'} are no certificate with its key (PEM, without a passphrase)"
        ):
            context.load_cert_chain(cert, key, password=_refuse_password)
        _check_expiry(x509.load_pem_x509_certificates(content)[0].not_valid_after_utc, cert, "certificate")
    return context


@contextmanager
def _value_errors(message: str) -> Iterator[None]:
    try:
        yield
    except (ssl.SSLError, ValueError):  # ssl.SSLError is an OSError
        raise ValueError(message) from None


def _refuse_password() -> str:
    raise ValueError


def _check_expiry(end: dt.datetime | None, path: str, kind: str) -> None:
    if end is not None and end < dt.datetime.now(dt.UTC):
        raise ValueError(f"the {kind} in {path} expired on {end:%Y-%m-%d at %H:%M} UTC: renew it")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise ValueError(f"{path!r} is not a path of a file") from None
