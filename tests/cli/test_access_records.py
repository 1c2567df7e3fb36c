"""Commands that give something away leave an event; where none can be written, they do nothing."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import purchase

CommandLine = Callable[..., subprocess.CompletedProcess[str]]
NO_SERVER = ("--nats-url", "nats://ledger:x@127.0.0.1:9")


@pytest.fixture
def ledger(command: CommandLine) -> CommandLine:
    """Return the command line of a ledger with one event."""
    assert command("publish", "-", stdin=json.dumps(purchase("p-1", "till")) + "\n").returncode == 0
    return command


def accesses(command: CommandLine) -> list[str]:
    """Return what was recorded as access."""
    events = [json.loads(line) for line in command("audit", "replay").stdout.splitlines()]
    return [one["data"]["what"] for one in events if one["type"] == "resolution.access.recorded.v1"]


def test_exports_and_copies_of_keys_are_recorded(ledger: CommandLine, tmp_path: Path) -> None:
    assert ledger("audit", "export", str(tmp_path / "events.parquet")).returncode == 0
    assert ledger("admin", "keys", "backup", str(tmp_path / "keys")).returncode == 0
    assert ledger("admin", "keys", "restore", str(tmp_path / "keys")).returncode == 0
    first, copied, restored = accesses(ledger)
    assert (first, copied) == ("export: positions 1 to 1", "export: keys")
    assert restored.startswith("restore: ")


def test_a_token_that_cannot_be_recorded_is_not_made(ledger: CommandLine, tmp_path: Path) -> None:
    done = ledger("admin", "tokens", "make", "eve", "--role", "operator", *NO_SERVER)
    assert done.returncode == 1
    assert json.loads(ledger("admin", "tokens", "list", "--json").stdout)["items"] == []


def test_a_token_is_revoked_where_the_server_answers(ledger: CommandLine) -> None:
    assert ledger("admin", "tokens", "make", "eve", "--role", "operator").returncode == 0
    done = ledger("admin", "tokens", "revoke", "eve", *NO_SERVER)
    assert done.returncode == 1
    assert len(json.loads(ledger("admin", "tokens", "list", "--json").stdout)["items"]) == 1
    assert ledger("admin", "tokens", "revoke", "eve").returncode == 0
    assert json.loads(ledger("admin", "tokens", "list", "--json").stdout)["items"] == []


def test_an_export_that_cannot_be_recorded_writes_no_file(ledger: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "events.parquet"
    assert ledger("audit", "export", str(file), *NO_SERVER).returncode == 1
    assert not file.exists()
