"""The archive: Parquet that others read, held against the seal, and restored so that positions keep their meaning."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.runtime.archive import archive_to_the_end, export, restore, verify_archive
from app.runtime.seal import seal_to_the_end, verification
from app.runtime.session import Session
from app.runtime.views import read_view
from consumers.seal import archive_service
from consumers.seal.archive_service import archive_of
from ledger.archive import event_archive as archives
from ledger.archive.event_archive import Archive
from ledger.errors import LedgerError
from ledger.store import subscription
from ledger.store.log import Draft
from ledger.transparency.event_differences import SealFinding
from ledger.transparency.sealer import GAP_SUBJECT, SealError, seal_folder
from ledger.transparency.signed_notes import Signer
from projections.views.audit_trail import Trail, read_trail
from tests.support.builders import event
from tests.support.forked_cli import CommandLine
from tests.support.sealed_logs import all_events, rewrite_history, settings_in
from tests.support.upstreams import upstream_of


def nothing(_done: int, _of: int) -> None:
    """Ignore progress."""


def stored(number: int, day: str = "2026-01-05") -> bytes:
    document = event(f"e-{number}", "interaction.opened", interaction_id=f"I-{number}")
    return json.dumps(document | {"recordedtime": f"{day}T10:00:00.000000Z"}).encode()


async def fill(session: Session, number: int, start: int = 0, day: str = "2026-01-05") -> None:
    door = await type(session.log).unstamped(session.client, session.log.stream)
    for at in range(start, start + number, 500):
        many = range(at, min(at + 500, start + number))
        await door.append([Draft("ledger.fact.crm", stored(n, day)) for n in many])


async def _verified(session: Session, archive: Archive) -> list[SealFinding]:
    return await verify_archive(archive.folder, seal_folder(session.data_dir), (), nothing, session.settings)


def ask_duckdb(text: str) -> list[Any]:
    """Run a query in DuckDB, in a process of its own; return its rows."""
    program = "import duckdb, json, sys; print(json.dumps(duckdb.execute(sys.argv[1]).fetchall()))"
    done = subprocess.run([sys.executable, "-c", program, text], capture_output=True, text=True, check=True)
    rows: list[Any] = json.loads(done.stdout)
    return rows


def query(folder: Path, text: str) -> list[Any]:
    return ask_duckdb(text.format(f"read_parquet('{folder}/day=*/*.parquet', hive_partitioning = true)"))


async def test_any_engine_that_reads_parquet_reads_the_archive(session: Session) -> None:
    await fill(session, 300)
    await fill(session, 200, 300, day="2026-01-06")
    assert await archive_to_the_end(session, nothing) == 500
    folder = archive_of(session.data_dir).folder
    assert query(
        folder, "select day::text, count(*), min(position), max(position) from {} group by day order by day"
    ) == [["2026-01-05", 300, 1, 300], ["2026-01-06", 200, 301, 500]]
    ((kept,),) = query(folder, "select decode(event) from {} where position = 7")
    assert kept.encode() == (await all_events(session))[6].data


async def test_the_archive_resumes_and_merges_small_files(session: Session) -> None:
    for start in range(0, 300, 100):
        await fill(session, 100, start)
        await archive_to_the_end(session, nothing)
    archive = archive_of(session.data_dir)
    (part,) = archive.parts()
    assert (part.first, part.last) == (1, 300)
    assert [path.name for path in archive.folder.rglob("*.parquet")] == ["1-300.parquet"]
    assert await archive_to_the_end(session, nothing) == 300


async def test_unsealed_events_are_not_archived(session: Session) -> None:
    await fill(session, 300)
    await seal_to_the_end(session)
    await rewrite_history(session, lambda events: events.__setitem__(9, events[9]._replace(data=stored(999))))
    with pytest.raises(SealError, match="position 10"):
        await archive_to_the_end(session, nothing)
    assert archive_of(session.data_dir).last_position == 0


async def _restored(session: Session, tmp_path: Path, trusted: Sequence[Any] = ()) -> Session:
    new = tmp_path / "new"
    shutil.copytree(session.data_dir / "seal", new / "seal")
    other = Session(settings_in(new))
    await other.__aenter__()
    try:
        await restore(other, archive_of(session.data_dir).folder, trusted, nothing)
    except BaseException:
        await other.close()
        raise
    return other


async def test_a_restored_log_is_proven_to_be_the_sealed_one(session: Session, tmp_path: Path) -> None:
    await fill(session, 1500)
    await archive_to_the_end(session, nothing)
    other = await _restored(session, tmp_path)
    try:
        assert await all_events(other) == await all_events(session)
        result = await verification(other, [], (), progressed=nothing)
        assert (result["findings"], result["size"]) == ([], 1500)
        with pytest.raises(LedgerError, match="has events already"):
            await restore(other, archive_of(session.data_dir).folder, (), nothing)
    finally:
        await other.close()


async def test_events_behind_the_end_of_the_archive_are_restored_from_the_seal(
    session: Session, tmp_path: Path
) -> None:
    await fill(session, 700)
    await archive_to_the_end(session, nothing)
    await fill(session, 600, 701)
    await rewrite_history(session, lambda _events: None, without=[900])
    await seal_to_the_end(session)  # as when the role `archive` is a few seconds behind
    other = await _restored(session, tmp_path)
    try:
        events = await all_events(other)
        assert [one.position for one in events if one.subject == GAP_SUBJECT] == [900]
        assert [one for one in events if one.subject != GAP_SUBJECT] == await all_events(session)
        result = await verification(other, [], (), progressed=nothing)
        assert (result["findings"], result["size"], result["gaps"]) == ([], 1300, [900])
    finally:
        await other.close()


async def test_a_changed_bundle_behind_the_end_of_the_archive_is_not_restored(session: Session, tmp_path: Path) -> None:
    await fill(session, 100)
    await archive_to_the_end(session, nothing)
    await fill(session, 20, 101)
    await seal_to_the_end(session)
    (bundle,) = (session.data_dir / "seal" / "tile" / "entries").glob("*.p/120")
    content = bytearray(bundle.read_bytes())
    content[-10] ^= 1
    bundle.write_bytes(content)
    with pytest.raises(LedgerError, match="was changed"):
        await _restored(session, tmp_path)


async def test_positions_keep_their_meaning_where_events_were_lost(session: Session, tmp_path: Path) -> None:
    await fill(session, 20)
    await rewrite_history(session, lambda _events: None, without=[7, 8])
    await archive_to_the_end(session, nothing)
    other = await _restored(session, tmp_path)
    try:
        events = await all_events(other)
        assert [one.position for one in events if one.subject == GAP_SUBJECT] == [7, 8]
        assert [one for one in events if one.subject != GAP_SUBJECT] == await all_events(session)
        result = await verification(other, [], (), progressed=nothing)
        assert (result["findings"], result["gaps"]) == ([], [7, 8])
        async with upstream_of(other) as upstream:
            await upstream.set_up_basics()  # who writes and who reads take the marker for what it is
            assert (await upstream.action())["outcome"] == "taken"
        answer = await read_view(other, Trail.name, lambda connection: read_trail(connection, []))
        assert answer.progress.anchor.position == await other.log.last_position()
    finally:
        await other.close()


@pytest.mark.parametrize("what", ["edited", "removed"])
async def test_a_damaged_archive_is_found_and_not_restored(session: Session, tmp_path: Path, what: str) -> None:
    await fill(session, 300)
    await archive_to_the_end(session, nothing)
    archive = archive_of(session.data_dir)
    path = archive.folder / archive.parts()[0].file
    if what == "removed":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    (wrong,) = await _verified(session, archive)
    assert (wrong.kind, wrong.first) == ("archive damaged", 1)
    with pytest.raises(LedgerError, match="archive's file"):
        await _restored(session, tmp_path)


async def test_an_archive_forged_with_its_checksums_is_found_by_the_seal(session: Session, tmp_path: Path) -> None:
    await fill(session, 700)
    await archive_to_the_end(session, nothing)
    forged = Archive(tmp_path / "forged")
    events = [one for batch in archive_of(session.data_dir).batches() for one in batch]
    events[299] = events[299]._replace(data=stored(999))
    seal = seal_folder(session.data_dir)
    note, keys = (seal.folder / "checkpoint").read_text(), (seal.folder / "verifiers").read_text()
    forged.add(events, note, keys)
    assert [(one.kind, one.first) for one in await _verified(session, forged)] == [("archive edited", 300)]
    shutil.rmtree(archive_of(session.data_dir).folder)
    shutil.copytree(forged.folder, archive_of(session.data_dir).folder)
    with pytest.raises(LedgerError, match="not what was sealed"):
        await _restored(session, tmp_path)
    with pytest.raises(LedgerError, match="no key that you trust"):
        async with Session(settings_in(tmp_path / "third")) as empty:
            await restore(empty, forged.folder, [Signer.make("x").verifier], nothing)


async def test_an_archive_of_many_files_verifies(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are added in parts, so that a long log is not in memory; small parts of a day share a file."""
    monkeypatch.setattr(subscription, "_BATCH_EVENTS", 100)
    await fill(session, 1000)
    archive = archive_of(session.data_dir)
    for changed, files in (
        ({"FILE_EVENTS": 300, "_GROWS_BELOW": 0}, 4),
        ({"_ADDED_EVENTS": 250, "_GROWS_BELOW_BYTES": 0}, 4),
        ({"_ADDED_BYTES": 1, "_GROWS_BELOW": 200}, 4),
        ({"_ADDED_BYTES": 1}, 1),
    ):
        with monkeypatch.context() as patch:
            for name, value in changed.items():
                patch.setattr(archive_service if "ADDED" in name else archives, name, value)
            await archive_to_the_end(session, nothing)
        assert len(archive.parts()) == files, changed
        assert await _verified(session, archive) == []
        shutil.rmtree(archive.folder)


async def test_an_export_is_one_file_of_the_same_columns(session: Session, tmp_path: Path) -> None:
    await fill(session, 1200)
    file = tmp_path / "all.parquet"
    assert await export(session, file, 101, 1200, nothing) == 1100
    assert ask_duckdb(f"select count(*), min(position), min(type) from '{file}'") == [
        [1100, 101, "resolution.interaction.opened.v1"]
    ]


def test_the_scrub_command_names_the_remedy(command: CommandLine, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(event(f"e-{n}", "interaction.opened", interaction_id=f"I-{n}")) for n in range(50))
    assert command("publish", "-", stdin=lines).returncode == 0
    assert json.loads(command("admin", "archive", "--json").stdout)["position"] == 50
    done = command("admin", "scrub")
    assert (done.returncode, done.stdout.strip()) == (0, "The log, the archive and the seal agree: nothing to do.")
    (file,) = (tmp_path / "data" / "archive").rglob("*.parquet")
    file.unlink()
    done = command("admin", "scrub")
    assert done.returncode == 1
    assert "Move the archive folder away" in done.stdout


def test_commands_archive_restore_and_export(command: CommandLine, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(event(f"e-{n}", "interaction.opened", interaction_id=f"I-{n}")) for n in range(50))
    assert command("publish", "-", stdin=lines).returncode == 0
    assert command("admin", "archive").returncode == 0
    new = tmp_path / "new"
    done = command("admin", "restore", str(tmp_path / "data" / "archive"), data_dir=new)
    assert (done.returncode, "50 positions restored" in done.stdout) == (0, True)
    *restored, access = command("audit", "replay", data_dir=new).stdout.splitlines()
    assert restored == command("audit", "replay").stdout.splitlines()
    assert json.loads(access)["data"] == {"who": "operator", "what": "restore: 50 positions", "via": "cli"}
    assert command("audit", "export", str(tmp_path / "x.parquet"), "--from", "11").returncode == 0
    assert ask_duckdb(f"select count(*) from '{tmp_path}/x.parquet'") == [[40]]


@pytest.mark.parametrize("line", ["7", '{"file": "../../x.parquet", "first": 1, "last": 2, "sha256": ""}', "\x00"])
async def test_a_manifest_that_names_no_file_of_the_archive_is_damaged(
    session: Session, tmp_path: Path, line: str
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "manifest.jsonl").write_text(line + "\n")
    with pytest.raises(LedgerError, match="manifest is damaged"):
        await restore(session, folder, (), nothing)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
@pytest.mark.timeout(60)
async def test_a_pipe_in_the_place_of_a_file_does_not_hang(session: Session) -> None:
    await fill(session, 10)
    await archive_to_the_end(session, nothing)
    archive = archive_of(session.data_dir)
    path = archive.folder / archive.parts()[0].file
    path.unlink()
    os.mkfifo(path)
    assert ["no regular file" in str(error) for error in archive.file_errors()] == [True]
