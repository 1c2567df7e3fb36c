"""Files given to commands: on any content, the command ends with one clear line and status 1 or 2."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.transparency.signed_notes import Signer, make_checkpoint
from tests.support import forked_cli
from tests.support.builders import event
from tests.support.environment import ROOT, clean_environment

pytestmark = pytest.mark.integration

Damage = Callable[[Path, bytes], object]


def run(data: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    words = [*arguments, "--data-dir", str(data)]
    return forked_cli.run(words, ROOT, clean_environment(), stdin, timeout=60)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data directory, and beside it a good file of each kind."""
    folder = tmp_path_factory.mktemp("files")
    data = folder / "data"
    facts = [
        event(
            f"e-{n}",
            "feedback.received",
            customer_id="C-1",
            instrument="csat",
            score=5,
            best=5,
            worst=1,
            comment="fine",
        )
        for n in range(5)
    ]
    assert run(data, "publish", "-", stdin="\n".join(map(json.dumps, facts))).returncode == 0
    (folder / "checkpoint").write_text(run(data, "audit", "checkpoint").stdout)
    (folder / "verifiers").write_text(run(data, "audit", "checkpoint", "--keys").stdout)
    assert run(data, "audit", "prove", "2", "--into", str(folder / "proof")).returncode == 0
    proof = (folder / "proof").read_text()
    case = f'<script type="application/json" id="case">{json.dumps({"proofs": [proof]})}</script>'
    (folder / "case").write_text(case)
    assert run(data, "admin", "keys", "backup", str(folder / "backup")).returncode == 0
    return folder


COMMANDS = {
    "proof": ("audit", "verify-proof", "FILE", "--key", "VERIFIERS"),
    "case": ("audit", "verify-proof", "FILE", "--key", "VERIFIERS"),
    "checkpoint": ("audit", "verify", "--checkpoint", "FILE"),
    "verifiers": ("audit", "verify-proof", "PROOF", "--key", "FILE"),
    "backup": ("admin", "keys", "restore", "FILE"),
}


def words(ledger: Path, kind: str, file: Path) -> list[str]:
    places = {"FILE": str(file), "VERIFIERS": str(ledger / "verifiers"), "PROOF": str(ledger / "proof")}
    return [places.get(word, word) for word in COMMANDS[kind]]


def flipped(data: bytes) -> bytes:
    """Flip the lowest bit of every 37th byte."""
    return bytes(byte ^ (n % 37 == 0) for n, byte in enumerate(data))


def huge(file: Path, _good: bytes) -> None:
    file.touch()
    os.truncate(file, 1 << 33)


OTHER = Signer.make("other.example")
DAMAGES: dict[str, Damage] = {
    "truncated": lambda file, good: file.write_bytes(good[: len(good) // 2]),
    "bits": lambda file, good: file.write_bytes(flipped(good)),
    "binary": lambda file, _: file.write_bytes(bytes(range(256)) * 8),
    "empty": lambda file, _: file.write_bytes(b""),
    "NUL": lambda file, good: file.write_bytes(b"\0" + good[1:]),
    "huge": huge,
    "list": lambda file, _: file.write_bytes(b"[1, 2]"),
    "deep": lambda file, _: file.write_bytes(b"[" * 200_000),
    "deep object": lambda file, _: file.write_bytes(b'{"a":' * 200_000),
    "deep case": lambda file, _: file.write_bytes(
        b'<script type="application/json" id="case">' + b'{"a":' * 200_000 + b"</script>"
    ),
    "number": lambda file, _: file.write_bytes(b'{"k.1": ' + b"9" * 10_000 + b"}"),
    "wrong entry": lambda file, _: file.write_bytes(b'{"k.%s.1": {"owner": 1}}' % (b"0" * 32)),
    "wrong name": lambda file, _: file.write_bytes(b'{"a b.>\\r\\nPUB": null}'),
    "surrogate": lambda file, _: file.write_bytes(b'{"hold.x": "\\ud800"}'),
    "other's": lambda file, _: file.write_text(make_checkpoint("other.example", 5, b"\1" * 32, [OTHER]).note),
    "other's key": lambda file, _: file.write_text(f"{OTHER.verifier.text()}\n"),
    "folder": lambda file, _: file.mkdir(),
    "loop": lambda file, _: file.symlink_to(file.name),
    "pipe": lambda file, _: os.mkfifo(file),
    "missing": lambda _file, _good: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_damaged_file_ends_in_one_clear_line(ledger: Path, tmp_path: Path, kind: str, damage: str) -> None:
    file = tmp_path / "file"
    DAMAGES[damage](file, (ledger / kind).read_bytes())
    done = run(ledger / "data", *words(ledger, kind, file))
    assert done.returncode in (1, 2), done.stdout
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert len(done.stderr) < 600


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_good_file_is_taken(ledger: Path, kind: str) -> None:
    done = run(ledger / "data", *words(ledger, kind, ledger / kind))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("into", ["folder", "nowhere/proof", "loop"])
def test_a_proof_that_cannot_be_written_ends_in_a_clear_line(ledger: Path, tmp_path: Path, into: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    done = run(ledger / "data", "audit", "prove", "2", "--into", str(tmp_path / into))
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
