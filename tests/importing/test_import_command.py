"""`import`: what it reports, records, resumes and retracts, on a real ledger."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment
from tests.support.forked_cli import CommandLine, json_of
from tests.support.imports import RETURNS, mapping_of

HEADER = "no,customer,amount,at\n"
ROWS = "1,K-1,4.00,02/06/2026 09:00\n2,K-2,6.00,03/06/2026 09:00\n"
_KILLED = 12_000
"""Rows of the import that is killed: enough for a kill in its midst."""
pytestmark = pytest.mark.integration


def written(folder: Path, rows: str = ROWS, mapping: Document | None = None) -> tuple[str, str]:
    """Write a mapping and a file; return their paths."""
    paths = folder / "mapping.yaml", folder / "returns.csv"
    paths[0].write_text(yaml.safe_dump(mapping or mapping_of(), sort_keys=False))
    paths[1].write_text(HEADER + rows)
    return str(paths[0]), str(paths[1])


def replay(command: CommandLine) -> list[Document]:
    return [json.loads(line) for line in command("audit", "replay").stdout.splitlines()]


def test_a_file_at_fault_records_nothing_and_ends_with_status_1(command: CommandLine, tmp_path: Path) -> None:
    words = written(tmp_path, '1,"K-1,4.00,02/06/2026 09:00\n')
    for more in ((), ("--dry-run",), ("--preview",)):
        done = command("import", *words, *more)
        assert (done.returncode, "line 2" in done.stderr) == (1, True)
    assert not (tmp_path / "data").exists()


def test_a_mapping_at_fault_ends_with_status_2(command: CommandLine, tmp_path: Path) -> None:
    words = written(tmp_path, mapping=mapping_of("SELECT 1"))
    assert command("import", *words).returncode == 2
    assert command("import").returncode == 2
    assert command("import", *words, "--retract", "x").returncode == 2


def test_the_report_says_types_times_totals_rejections_and_conditions(command: CommandLine, tmp_path: Path) -> None:
    rows = ROWS + "3,K-3,x,03/06/2026 09:00\n4,K-4,y,03/06/2026 09:00\n"
    words = written(tmp_path, rows, mapping_of(f"{RETURNS} WHERE customer <> 'nobody' OR customer = 'K-9'"))
    found = json_of(command("import", *words, "--json"), 1)
    (summary,) = found["types"]
    assert summary == {
        "type": "resolution.purchase.returned.v1",
        "events": 2,
        "first": "2026-06-02T08:00:00.000000Z",
        "last": "2026-06-03T08:00:00.000000Z",
        "totals": [{"field": "total", "amount": "10.00", "currency": "GBP"}],
    }
    (kind,) = found["rejections_by_kind"]
    assert (kind["count"], kind["field"], kind["lines"]) == (2, "amount", [4, 5])
    assert found["nothing"] == ["events[0].select: the condition customer = 'K-9' held for no row"]
    assert (found["read"], found["recorded"]) == (4, 2)
    text = command("import", *words).stdout
    assert all(part in text for part in ("Rejected, by kind", "10.00 GBP", "held for no row"))


def test_a_dry_run_beside_a_ledger_tells_new_duplicate_reused_and_rejected(
    command: CommandLine, tmp_path: Path
) -> None:
    words = written(tmp_path)
    json_of(command("import", *words, "--json"))
    rows = ROWS.replace("6.00", "7.00") + "3,K-3,1.00,03/06/2026 09:00\n4,K-4,x,03/06/2026 09:00\n"
    before = replay(command)
    found = json_of(command("import", *written(tmp_path, rows), "--dry-run", "--json"), 1)
    counts = {name: found[name] for name in ("recorded", "duplicate", "reused", "rejected", "dry_run")}
    assert counts == {"recorded": 1, "duplicate": 1, "reused": 1, "rejected": 2, "dry_run": True}
    assert replay(command) == before
    real = json_of(command("import", *words, "--json"), 1)
    assert [real[name] for name in ("recorded", "duplicate", "rejected")] == [1, 1, 2]


def test_hashes_are_made_with_the_ledgers_key_and_no_address_is_stored(command: CommandLine, tmp_path: Path) -> None:
    mapping = mapping_of(RETURNS.replace("customer AS", "email_hash(customer) AS"))
    words = written(tmp_path, ROWS.replace("K-1", "pat@example.org").replace("K-2", " PAT@example.org"), mapping)
    assert "not the final ones" in json_of(command("import", *words, "--dry-run", "--json"))["warnings"][0]
    json_of(command("import", *words, "--json"))
    again = json_of(command("import", *words, "--dry-run", "--json"))
    assert (again["duplicate"], again["warnings"]) == (2, [])
    first, second = replay(command)
    assert first["data"]["customer_id"] == second["data"]["customer_id"]
    stored = subprocess.run(["grep", "-rliF", "pat@example", str(tmp_path / "data")], capture_output=True, check=False)
    assert stored.stdout == b""


def test_a_preview_shows_the_first_events_as_a_table(command: CommandLine, tmp_path: Path) -> None:
    done = command("import", *written(tmp_path), "--preview")
    assert done.returncode == 0
    assert "│    2 │ 1  │ 2026-06-02T08:00:00.000000Z │ K-1 " in done.stdout
    items = json_of(command("import", *written(tmp_path), "--preview", "--json"))["items"]
    assert [one["event"]["id"] for one in items] == ["1", "2"]
    assert not (tmp_path / "data").exists()


def test_a_killed_import_is_continued_to_the_same_log(command: CommandLine, tmp_path: Path) -> None:
    """The mapping has a join, a window and JSON, whose order must be the same in both runs."""
    rows = "".join(f"{n},K-{n % 97},4.00,02/06/2026 09:00\n" for n in range(_KILLED))
    view = "SELECT *, row_number() OVER (PARTITION BY customer ORDER BY CAST(no AS INTEGER)) AS n FROM returns"
    select = RETURNS.replace("no AS id", "no || '/' || n AS id, more->>'$.order' AS order_id")
    mapping = mapping_of(
        select.replace("FROM returns", "FROM numbered JOIN orders USING (no)"),
        files={"returns": {}, "orders": {}},
        views={"numbered": view},
    )
    orders = tmp_path / "orders.jsonl"
    orders.write_text("".join(f'{{"no": {n}, "more": {{"order": "O-{n}"}}}}\n' for n in reversed(range(_KILLED))))
    words = (*written(tmp_path, rows, mapping), str(orders))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    started = subprocess.Popen(
        [sys.executable, "-m", "resolution_ledger", "--data-dir", str(killed), "import", *words, "--json"],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = killed / "jetstream" / "LEDGER" / "streams" / "LEDGER" / "msgs"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and started.poll() is None:
        sizes = [path.stat().st_size for path in folder.glob("*.blk")] if folder.exists() else []
        if sum(sizes) > 100_000:
            break
        time.sleep(0.02)
    assert started.poll() is None
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    recorded = len(command("audit", "replay", data_dir=killed).stdout.splitlines())
    assert 0 < recorded < _KILLED
    json_of(command("import", *words, "--json", data_dir=killed))
    json_of(command("import", *words, "--json", data_dir=whole))
    logs = [
        [
            {name: value for name, value in json.loads(line).items() if name != "recordedtime"}
            for line in command("audit", "replay", data_dir=folder).stdout.splitlines()
        ]
        for folder in (killed, whole)
    ]
    assert len(logs[0]) == _KILLED
    assert logs[0] == logs[1]
    assert not (killed / "import").exists()


@pytest.mark.parametrize(("delimiter", "amount"), [(",", "4.00"), (";", "4,00")])
def test_a_proposal_for_an_unknown_file_can_be_imported(
    command: CommandLine, tmp_path: Path, delimiter: str, amount: str
) -> None:
    path = tmp_path / "sales.csv"
    path.write_text(f"no;client;amount;at\n1;K-1;{amount};02/06/2026 09:00\n".replace(";", delimiter))
    done = command("import", "--guess", str(path))
    assert done.returncode == 0
    assert done.stdout.count("CHECK") >= 3
    (tmp_path / "guess.yaml").write_text(done.stdout)
    found = json_of(command("import", str(tmp_path / "guess.yaml"), str(path), "--dry-run", "--json"))
    assert found["types"][0]["totals"] == [{"field": "total", "amount": "4.00", "currency": "GBP"}]
