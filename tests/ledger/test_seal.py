"""The seal: every change of the recorded history is found, with its kind and position."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.runtime.seal import seal_to_the_end, verification
from app.runtime.session import Session
from consumers.runtime.alarm_watch import AlarmWatch
from consumers.seal.service import SealService
from ledger.store.log import Draft, Recorded
from ledger.transparency import alarm
from ledger.transparency.alarm import AlarmError
from ledger.transparency.merkle import ProofError
from ledger.transparency.proofs import prove, read_proof, verify_proof
from ledger.transparency.sealer import Sealer, SealError, decode_entry, seal_folder
from ledger.transparency.signed_notes import NoteError, Signer, make_checkpoint, read_checkpoint
from ledger.transparency.tiles import tile_path
from tests.support.builders import event
from tests.support.environment import ROOT
from tests.support.forked_cli import CommandLine
from tests.support.sealed_logs import (
    SEALED_EVENTS,
    all_events,
    append_events,
    findings_of_verification,
    rewrite_history,
    settings_in,
)
from tests.support.up_process import UpProcess

pytestmark = pytest.mark.integration


@pytest.fixture
async def sealed(tmp_path: Path) -> AsyncIterator[Session]:
    async with Session(settings_in(tmp_path / "data")) as session:
        await append_events(session)
        await seal_to_the_end(session)
        yield session


async def test_an_untouched_log_verifies_and_every_event_can_be_proved(sealed: Session) -> None:
    folder = seal_folder(sealed.data_dir)
    newest = folder.checkpoint()
    assert newest is not None
    assert newest.size == SEALED_EVENTS
    assert await findings_of_verification(sealed, [newest], folder.verifiers()) == []
    events = await all_events(sealed)
    for position in (1, 256, 257, 512, SEALED_EVENTS):
        proof = read_proof(prove(folder.tiles(newest.size), newest, position).text())
        entry = verify_proof(proof, folder.verifiers())
        assert (entry.position, entry.subject, entry.data) == events[position - 1]
        with pytest.raises(ProofError, match="none of the given keys"):
            verify_proof(proof, [Signer.make("other").verifier])
        with pytest.raises(ProofError):
            verify_proof(proof._replace(entry=proof.entry[:-1] + b"x"), folder.verifiers())
    assert (folder.folder / "key").stat().st_mode & 0o777 == 0o600


async def test_an_edited_event_is_found_at_its_position(sealed: Session) -> None:
    def edit(events: list[Recorded]) -> None:
        events[299] = events[299]._replace(data=events[299].data.replace(b'"n": 299', b'"n": 999'))

    await rewrite_history(sealed, edit)
    assert await findings_of_verification(sealed) == [("edited", 300, 300)]


async def test_a_removed_event_is_found_at_its_position(sealed: Session) -> None:
    await rewrite_history(sealed, lambda _events: None, without=[300, 301])
    assert await findings_of_verification(sealed) == [("removed", 300, 301)]


async def test_an_event_taken_out_so_that_the_others_move_up_is_found(sealed: Session) -> None:
    await rewrite_history(sealed, lambda events: events.pop(299) and None)
    kinds = await findings_of_verification(sealed)
    assert kinds[0][:2] == ("removed", 300)


@pytest.mark.parametrize(("one", "other"), [(300, 301), (10, 600)])
async def test_two_events_that_changed_places_are_found(sealed: Session, one: int, other: int) -> None:
    def swap(events: list[Recorded]) -> None:
        events[one - 1], events[other - 1] = events[other - 1], events[one - 1]

    await rewrite_history(sealed, swap)
    assert await findings_of_verification(sealed) == [("swapped", one, other)]


async def test_an_event_added_in_the_middle_is_found_where_it_was_added(sealed: Session) -> None:
    await rewrite_history(sealed, lambda events: events.insert(299, Recorded(0, "ledger.fact.s0", b'{"n": -1}')))
    assert (await findings_of_verification(sealed))[0][:2] == ("inserted", 300)


async def test_a_tail_cut_off_and_written_over_is_found_from_its_first_position(sealed: Session) -> None:
    def cut(events: list[Recorded]) -> None:
        events[649:] = [one._replace(data=b'{"n": "other"}') for one in events[649:]]

    await rewrite_history(sealed, cut)
    assert await findings_of_verification(sealed) == [("rewritten", 650, SEALED_EVENTS)]


async def test_a_tail_cut_off_is_found(sealed: Session) -> None:
    await rewrite_history(sealed, lambda events: events.__delitem__(slice(649, None)))
    assert await findings_of_verification(sealed) == [("cut", 650, SEALED_EVENTS)]


async def test_an_older_backup_of_the_server_put_back_is_found(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with Session(settings_in(data)) as session:
        await append_events(session)
    shutil.copytree(data / "jetstream", tmp_path / "backup")
    async with Session(settings_in(data)) as session:
        await append_events(session, 200, SEALED_EVENTS)
        await seal_to_the_end(session)
    shutil.rmtree(data / "jetstream")
    shutil.copytree(tmp_path / "backup", data / "jetstream")
    async with Session(settings_in(data)) as session:
        assert await findings_of_verification(session) == [("cut", SEALED_EVENTS + 1, SEALED_EVENTS + 200)]


async def test_an_older_backup_of_everything_is_found_with_a_checkpoint_kept_elsewhere(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with Session(settings_in(data)) as session:
        await append_events(session)
        await seal_to_the_end(session)
    shutil.copytree(data, tmp_path / "backup")
    async with Session(settings_in(data)) as session:
        await append_events(session, 200, SEALED_EVENTS)
        await seal_to_the_end(session)
        kept = seal_folder(data).checkpoint()
    assert kept is not None
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "backup", data)
    async with Session(settings_in(data)) as session:
        assert await findings_of_verification(session) == []
        assert await findings_of_verification(session, [kept]) == [
            ("history shortened", SEALED_EVENTS + 1, SEALED_EVENTS + 200)
        ]


@pytest.mark.parametrize("block", ["first", "last"])
async def test_a_flipped_bit_in_a_block_file_is_found(tmp_path: Path, block: str) -> None:
    data = tmp_path / "data"
    async with Session(settings_in(data)) as session:
        await session.log.append(
            [Draft("ledger.x", json.dumps({"n": n, "x": "x" * 4000}).encode()) for n in range(900)]
        )
        for start in range(900, 5000, 900):
            many = range(start, start + 900)
            await session.log.append([Draft("ledger.x", json.dumps({"n": n, "x": "x" * 4000}).encode()) for n in many])
        await seal_to_the_end(session)
    (folder,) = data.rglob("LEDGER/msgs")
    blocks = sorted(folder.glob("*.blk"), key=lambda path: int(path.stem))
    assert len(blocks) > 1
    path = blocks[0] if block == "first" else blocks[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (folder / "index.db").unlink()
    async with Session(settings_in(data)) as session:
        found = await findings_of_verification(session)
    assert found
    assert {kind for kind, _, _ in found} <= {"removed", "cut", "edited", "rewritten"}
    size = 5400
    first = found[0][1]
    middle = (first < size / 2) if block == "first" else (first > size / 2)
    assert middle, found


async def test_a_history_forked_after_a_kept_checkpoint_is_found(sealed: Session) -> None:
    folder = seal_folder(sealed.data_dir)
    kept = folder.checkpoint()
    assert kept is not None
    signer = folder.signer()

    def fork(events: list[Recorded]) -> None:
        events[99] = events[99]._replace(data=b'{"n": "forked"}')

    await rewrite_history(sealed, fork)
    shutil.rmtree(folder.folder / "tile")
    (folder.folder / "checkpoint").unlink()
    sealer = Sealer(folder)
    sealer.take(await all_events(sealed))
    sealer.sign()
    assert folder.signer() == signer
    assert await findings_of_verification(sealed) == [
        ("history forked", 1, SEALED_EVENTS)
    ]  # the server has kept a checkpoint, too
    assert await findings_of_verification(sealed, [kept]) == [("history forked", 1, SEALED_EVENTS)]


@pytest.mark.parametrize("name", [tile_path(0, 1), tile_path("entries", 1), tile_path(1, 0, 2)])
async def test_an_edited_tile_is_found_and_the_log_is_not_blamed(sealed: Session, name: str) -> None:
    path = seal_folder(sealed.data_dir).folder / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    found = await findings_of_verification(sealed)
    assert {kind for kind, _, _ in found} == {"tile edited"}
    assert found[0][1] in (257, 512, 1)


async def test_a_lost_tile_is_found(sealed: Session) -> None:
    (seal_folder(sealed.data_dir).folder / tile_path(0, 1)).unlink()
    assert ("tile missing", 257, 512) in await findings_of_verification(sealed)


async def test_an_old_checkpoint_put_back_is_found(sealed: Session) -> None:
    path = seal_folder(sealed.data_dir).folder / "checkpoint"
    old = path.read_text()
    await append_events(sealed, 300, SEALED_EVENTS)
    await seal_to_the_end(sealed)
    path.write_text(old)
    assert ("checkpoint replaced", SEALED_EVENTS + 1, SEALED_EVENTS + 1) in await findings_of_verification(sealed)


async def test_a_forged_checkpoint_is_found(sealed: Session) -> None:
    folder = seal_folder(sealed.data_dir)
    forged = make_checkpoint(folder.signer().name, SEALED_EVENTS, b"\0" * 32, [Signer.make(folder.signer().name)])
    (folder.folder / "checkpoint").write_text(forged.note)
    assert ("checkpoint forged", 1, SEALED_EVENTS) in await findings_of_verification(sealed)


async def test_a_replaced_key_is_found_with_the_true_one(sealed: Session) -> None:
    folder = seal_folder(sealed.data_dir)
    true, newest = folder.verifiers(), folder.checkpoint()
    assert newest is not None
    intruder = Signer.make(folder.signer().name)
    (folder.folder / "key").write_text(intruder.text())
    assert ("key replaced", 1, SEALED_EVENTS) in await findings_of_verification(sealed)
    (folder.folder / "verifiers").write_text(intruder.verifier.text() + "\n")
    (folder.folder / "checkpoint").write_text(
        make_checkpoint(intruder.name, SEALED_EVENTS, newest.root, [intruder]).note
    )
    kinds = {
        kind for kind, _, _ in await findings_of_verification(sealed)
    }  # all of the folder: what the server keeps shows it
    assert kinds == {"key replaced", "checkpoint not trusted"}
    assert ("key replaced", 1, SEALED_EVENTS) in await findings_of_verification(sealed, keys=true)
    assert ("checkpoint not trusted", 1, SEALED_EVENTS) in await findings_of_verification(sealed, [newest])


async def test_a_rotated_key_is_trusted_with_its_predecessor(sealed: Session) -> None:
    folder = seal_folder(sealed.data_dir)
    before, kept = folder.verifiers(), folder.checkpoint()
    assert kept is not None
    old, new = folder.rotate()
    await append_events(sealed, 50, SEALED_EVENTS)
    await seal_to_the_end(sealed)
    newest = folder.checkpoint()
    assert newest is not None
    assert newest.signed_by([old, new]) == [new]
    assert await findings_of_verification(sealed, [kept, newest], before) == []
    assert folder.trusted(before) == [old, new]


async def test_signatures_of_others_are_kept(sealed: Session) -> None:
    folder = seal_folder(sealed.data_dir)
    newest = folder.checkpoint()
    assert newest is not None
    witness = Signer.make("witness.example")
    cosigned = read_checkpoint(newest.note + witness.line(newest.text))
    folder.add_cosignatures(cosigned)
    (kept,) = folder.cosigned()
    assert kept.signed_by([witness.verifier]) == [witness.verifier]
    with pytest.raises(NoteError, match="not a checkpoint of this ledger"):
        folder.add_cosignatures(make_checkpoint("else", 3, b"\0" * 32, [witness]))


async def test_a_position_without_an_event_is_sealed_as_a_gap(tmp_path: Path) -> None:
    async with Session(settings_in(tmp_path / "data")) as session:
        await append_events(session, 20)
        await rewrite_history(session, lambda _events: None, without=[7, 8])
        await seal_to_the_end(session)
        folder = seal_folder(session.data_dir)
        assert decode_entry(folder.tiles(20).entry(6)).is_gap
        result = await verification(session, (), (), progressed=lambda _done, _of: None)
        assert result["gaps"] == [7, 8]
        assert result["findings"] == []


async def test_a_verification_goes_on_where_it_was_interrupted(sealed: Session) -> None:
    from ledger.transparency.verification import Verification

    folder, state = seal_folder(sealed.data_dir), sealed.data_dir / "verify.json"
    first = Verification(folder, (), folder.verifiers())
    first.take((await all_events(sealed))[:512])
    first.save(state, "log")
    second = Verification(folder, (), folder.verifiers())
    second.load(state, "log")
    assert second.position == 512
    second.take((await all_events(sealed))[512:])
    assert second.findings(SEALED_EVENTS) == []


async def test_a_seal_that_disagrees_raises_the_alarm_and_stops_writers(sealed: Session) -> None:
    watch = AlarmWatch(sealed.client)
    await watch.start()
    await rewrite_history(sealed, lambda events: events.__delitem__(slice(649, None)))
    service = SealService(sealed.url, sealed.client, sealed.log, sealed.data_dir)
    await service.start()
    try:
        with pytest.raises(SealError, match="a sealed event is gone"):
            await asyncio.wait_for(asyncio.shield(service.failed), 20)
        with pytest.raises(AlarmError, match="a sealed event is gone"):
            await asyncio.wait_for(asyncio.shield(watch.failed), 20)
    finally:
        await service.stop()
        await watch.stop()
    with pytest.raises(AlarmError):
        await AlarmWatch(sealed.client).start()
    await alarm.clear_alarm(await sealed.connection("operator", user="operator"))
    again = AlarmWatch(sealed.client)
    await again.start()
    await again.stop()


def test_up_seals_within_a_second_and_the_outsider_agrees(up: UpProcess, command: CommandLine, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(event(f"e-{n}", "interaction.opened", interaction_id=f"I-{n}")) for n in range(50))
    assert command("publish", "-", stdin=lines).returncode == 0
    checkpoint = json.loads(command("audit", "checkpoint", "--json").stdout)
    assert checkpoint["size"] == 50
    file = tmp_path / "p.tlog-proof"
    assert command("audit", "prove", "17", "--into", str(file)).returncode == 0
    key = checkpoint["verifier_keys"][0]
    outside = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "operate" / "independent_verifier.py"), str(file), key],
        capture_output=True,
        text=True,
        check=True,
    )
    replayed = [json.loads(line) for line in command("audit", "replay").stdout.splitlines()]
    assert json.loads(outside.stdout) == {k: v for k, v in replayed[16].items() if k != "position"}
    assert command("audit", "verify-proof", str(file), "--key", key, data_dir=None).returncode == 0
    file.write_text(file.read_text().replace("index 16", "index 17"))
    assert command("audit", "verify-proof", str(file), "--key", key, data_dir=None).returncode == 1
    kept = tmp_path / "kept"
    kept.write_text(checkpoint["checkpoint"])
    assert command("audit", "verify", "--checkpoint", str(kept), "--key", key).returncode == 0
