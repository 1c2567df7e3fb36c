"""`admin certificates`: an authority and servers' certificates that TLS accepts, made once and renewed in time."""

import json
import ssl
import stat
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from cryptography import x509

from app.runtime.certificates import MadeCertificate, make_certificates
from ledger.errors import LedgerError
from tests.support.forked_cli import CommandLine

SERVERS = [["nats-1", "localhost", "127.0.0.1"], ["nats-2", "*.example.com", "::1"]]


def done(found: list[MadeCertificate]) -> list[str]:
    return [one.done for one in found]


def later(days: int) -> type[datetime]:
    """Return a clock that is so many days ahead."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # a plain datetime
            return datetime.now(tz) + timedelta(days=days)

    return Later


def handshake(folder: Path, ca: Path, server: str, named: str) -> str:
    """Let a server and a client shake hands in memory, both with certificates; return the client's error, or empty."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    server_context.verify_mode = ssl.CERT_REQUIRED
    client_context = ssl.create_default_context(cafile=str(ca))
    for context in (server_context, client_context):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(folder / f"{server}.pem", folder / f"{server}-key.pem")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_context.wrap_bio(down, up, server_hostname=named),
        server_context.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return str(error)
    return ""


@pytest.mark.parametrize(
    ("server", "named"),
    [("nats-1", "nats-1"), ("nats-1", "127.0.0.1"), ("nats-2", "n9.example.com"), ("nats-2", "::1")],
)
def test_a_server_is_trusted_by_each_of_its_names_and_as_a_client(tmp_path: Path, server: str, named: str) -> None:
    make_certificates(tmp_path, SERVERS, 365)
    assert handshake(tmp_path, tmp_path / "ca.pem", server, named) == ""
    assert "not valid for 'other'" in handshake(tmp_path, tmp_path / "ca.pem", server, "other")


def test_another_authority_trusts_it_not(tmp_path: Path) -> None:
    make_certificates(tmp_path / "ours", SERVERS, 365)
    make_certificates(tmp_path / "theirs", SERVERS, 365)
    assert "unable to get local issuer" in handshake(
        tmp_path / "ours", tmp_path / "theirs" / "ca.pem", "nats-1", "nats-1"
    )


def test_keys_are_their_owners_alone_and_a_repetition_changes_nothing(tmp_path: Path) -> None:
    assert done(make_certificates(tmp_path, SERVERS, 365)) == ["made", "made", "made"]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"ca.pem", "ca-key.pem", "nats-1.pem", "nats-1-key.pem", "nats-2.pem", "nats-2-key.pem"}
    for path in tmp_path.glob("*-key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert done(make_certificates(tmp_path, SERVERS, 30)) == ["", "", ""]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_certificate_is_made_anew_when_it_no_longer_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_certificates(tmp_path, SERVERS, 90)
    authority = (tmp_path / "ca.pem").read_bytes()
    assert done(make_certificates(tmp_path, [["nats-1", "n1.example.com"], SERVERS[1]], 90)) == ["", "renewed", ""]
    (tmp_path / "nats-2-key.pem").write_bytes((tmp_path / "nats-1-key.pem").read_bytes())  # an interrupted renewal
    assert done(make_certificates(tmp_path, SERVERS, 90)) == ["", "renewed", "renewed"]
    (tmp_path / "nats-1.pem").write_text("nonsense")
    (tmp_path / "nats-2-key.pem").unlink()
    assert done(make_certificates(tmp_path, SERVERS, 90)) == ["", "renewed", "renewed"]

    for days, renewed in ((59, ""), (61, "renewed")):
        monkeypatch.setattr("app.runtime.certificates.datetime", later(days))
        found = make_certificates(tmp_path, SERVERS, 90)
        assert done(found) == ["", renewed, renewed], days
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert found[1].expires > datetime.now(UTC) + timedelta(days=150)
    assert handshake(tmp_path, tmp_path / "ca.pem", "nats-1", "nats-1") != ""  # not valid yet


def test_a_lost_key_of_the_authority_is_not_replaced_in_silence(tmp_path: Path) -> None:
    make_certificates(tmp_path, SERVERS, 365)
    key, certificate = tmp_path / "ca-key.pem", tmp_path / "ca.pem"
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(LedgerError, match=r"ca\.pem exists without ca-key\.pem"):
        make_certificates(tmp_path, SERVERS, 365)
    key.write_bytes((tmp_path / "nats-1-key.pem").read_bytes())
    with pytest.raises(LedgerError, match=r"not the key of ca\.pem"):
        make_certificates(tmp_path, SERVERS, 365)
    key.write_text("nonsense")
    with pytest.raises(LedgerError, match="cannot be read"):
        make_certificates(tmp_path, SERVERS, 365)
    key.write_bytes(kept)
    certificate.unlink()  # the command was interrupted before the first certificate
    assert done(make_certificates(tmp_path, SERVERS, 365))[0] == "made"
    x509.load_pem_x509_certificate((tmp_path / "nats-1.pem").read_bytes()).verify_directly_issued_by(
        x509.load_pem_x509_certificate(certificate.read_bytes())
    )


def test_an_expired_authority_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_certificates(tmp_path, SERVERS, 365)
    monkeypatch.setattr("app.runtime.certificates.datetime", later(3651))
    with pytest.raises(LedgerError, match=r"ca\.pem expired on"):
        make_certificates(tmp_path, SERVERS, 365)


@pytest.mark.parametrize("names", [[""], ["../x"], ["*.example.com"], ["ca"], ["a b"], ["nats-1", "x/y"], [".x"], []])
def test_a_name_that_is_none_is_refused_before_anything_is_written(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(LedgerError, match=r"needs a first name|neither a DNS name"):
        make_certificates(tmp_path / "new", [["nats-1"], names], 365)
    assert not (tmp_path / "new").exists()


def test_the_command_prints_its_work_and_copies_the_authority(command: CommandLine, tmp_path: Path) -> None:
    words = ("admin", "certificates", str(tmp_path / "keys"), "--server", "nats-1,127.0.0.1", "--authority")
    found = command(*words, str(tmp_path / "public" / "ca.pem"), "--json")
    assert found.returncode == 0, found.stderr
    items = json.loads(found.stdout)["items"]
    assert [(one["file"], one["names"], one["done"]) for one in items] == [
        ("ca.pem", [], "made"),
        ("nats-1.pem", ["nats-1", "127.0.0.1"], "made"),
    ]
    assert (tmp_path / "public" / "ca.pem").read_bytes() == (tmp_path / "keys" / "ca.pem").read_bytes()
    assert [path.name for path in (tmp_path / "public").iterdir()] == ["ca.pem"]
    assert "nats-1.pem" in command(*words, str(tmp_path / "public" / "ca.pem")).stdout


def test_the_files_of_a_server_are_in_its_own_folder_and_its_group_may_read_the_key(
    command: CommandLine, tmp_path: Path
) -> None:
    words = ["admin", "certificates", str(tmp_path / "ca"), "--server", "nats-1,localhost", "--server", "database"]
    words += ["--into", f"database={tmp_path / 'servers' / 'database'}", "--json"]
    for expected in (["made", "made", "made"], ["", "", ""]):
        made = json.loads(command(*words).stdout)["items"]
        assert [one["done"] for one in made] == expected
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.pem")}
    assert sorted(files) == [
        *("ca/ca-key.pem", "ca/ca.pem", "ca/nats-1-key.pem", "ca/nats-1.pem"),
        *("servers/database/database-key.pem", "servers/database/database.pem"),
    ]
    modes = {name: stat.S_IMODE(files[name].stat().st_mode) for name in files if "key" in name}
    assert modes == {"ca/ca-key.pem": 0o600, "ca/nats-1-key.pem": 0o600, "servers/database/database-key.pem": 0o640}
    for wrong in ("database", "other=/tmp/x", "=x"):
        assert command(*words, "--into", wrong).returncode == 2
