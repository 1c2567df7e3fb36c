"""The listen address: loopback by default, elsewhere only with TLS or a proxy that terminates it."""

import datetime as dt
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.runtime.roles import running
from app.runtime.session import Session
from dashboard.listen_address import ListenAddress, token_of
from dashboard.service import DashboardService
from ledger.errors import LedgerError


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """Write a certificate of the host localhost, valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]),
        dt.datetime.now(dt.UTC),
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(files[0]), str(files[1])


def test_elsewhere_only_encrypted(certificate: tuple[str, str]) -> None:
    for wrong, says in (
        (ListenAddress("0.0.0.0"), "behind-proxy"),
        (ListenAddress("::"), "behind-proxy"),
        (ListenAddress("host"), "IP"),
        (ListenAddress(certificate=certificate[0]), "both"),
        (ListenAddress(certificate=certificate[1], key=certificate[1]), "cannot be used"),
    ):
        with pytest.raises(LedgerError, match=says):
            wrong.checked()
    for right in (
        ListenAddress(),
        ListenAddress("::1"),
        ListenAddress("0.0.0.0", behind_proxy=True),
        ListenAddress("0.0.0.0", None, *certificate),
    ):
        assert right.checked() == right
    assert ListenAddress("0.0.0.0", None, *certificate).options(5) == [
        "--descriptor",
        "5",
        "--host",
        "0.0.0.0",
        "--tls-cert",
        certificate[0],
        "--tls-key",
        certificate[1],
    ]


async def test_tls(session: Session, certificate: tuple[str, str]) -> None:
    where = ListenAddress("127.0.0.1", 0, *certificate)
    async with running(session, ["projections", "dashboard"], where=where) as services:
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        address = dashboard.address.replace("127.0.0.1", "localhost")
        trust = ssl.create_default_context(cafile=certificate[0])
        async with httpx.AsyncClient(base_url=address, verify=trust, timeout=20) as client:
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            begun = await client.post("/api/v1/session", json={"token": dashboard.token})
            assert "Secure" in begun.headers["Set-Cookie"]
            assert (await client.get("/api/v1/me")).json()["role"] == "operator"


def test_dashboards_that_begin_together_have_one_token(tmp_path: Path) -> None:
    """As two containers with one volume do, whose processes even have the same id."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            folder = tmp_path / str(number)
            found = {*pool.map(lambda _: token_of(folder), range(8))}  # noqa: B023 - awaited in this round
            assert len(found) == 1
            (file,) = (folder / "server").iterdir()
            assert file.read_text() in found
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
