"""Proofs, checkpoints and the archive at another machine than the seal's: the machine that seals is asked over NATS."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.runtime.roles import running
from app.runtime.seal import folder_to_read, from_seal, seal_to_the_end
from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from consumers.seal.archive_service import archive_log, archive_of
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from ledger.errors import UnavailableError
from ledger.store.log import Draft, Log
from ledger.transparency import seal_mirror
from ledger.transparency.merkle import ProofError
from ledger.transparency.proofs import prove, read_proof, verify_proof
from ledger.transparency.seal_mirror import SEAL_FAULTS, SEAL_MIRROR, SealMirror, answer, read_seal
from ledger.transparency.seal_record import SealRecord
from ledger.transparency.sealer import Sealer, seal_folder
from ledger.transparency.signed_notes import NoteError, Signer, make_checkpoint
from ledger.transparency.tiles import Tiles, TileWriter, tile_path
from tests.support.builders import event
from tests.support.http_api import client_with_token
from tests.support.sealed_logs import append_events, rewrite_history
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ledger.transparency.sealer import SealFolder

pytestmark = pytest.mark.integration


@asynccontextmanager
async def elsewhere(session: Session, folder: Path) -> AsyncIterator[Session]:
    """Open the ledger at another machine, with a data directory of its own."""
    settings = load_settings({"data_dir": str(folder), "nats_url": session.url, "allow_lazy_fsync": True}, {})
    async with Session(settings) as other:
        yield other


async def record(session: Session, number: int) -> None:
    """Append so many facts as the intake stores them."""
    fact = event("x", "shift.started", employee_id="A-1")
    drafts = [Draft("ledger.fact.crm", json.dumps(fact | {"id": str(n)}).encode()) for n in range(number)]
    await session.log.append(drafts)


def mirror_of(session: Session, folder: Path) -> SealMirror:
    return SealMirror(session.log, topology.SEAL_SUBJECT, folder)


def proof_of(position: int) -> Callable[[SealFolder], str]:
    def make(seal: SealFolder) -> str:
        newest = seal.checkpoint()
        assert newest is not None
        return prove(seal.tiles(newest.size), newest, position).text()

    return make


async def sealed(session: Session, end: int) -> None:
    async def size() -> int:
        newest = seal_folder(session.data_dir).checkpoint()
        return 0 if newest is None else newest.size

    await eventually(size, lambda found: found >= end)


async def test_proofs_elsewhere_are_those_of_the_seal(session: Session, tmp_path: Path) -> None:
    await append_events(session, 900)
    async with running(session, ["seal"]), elsewhere(session, tmp_path / "other") as other:
        await sealed(session, 900)
        keys = seal_folder(session.data_dir).verifiers()
        mirror, none = mirror_of(other, tmp_path / "mirror"), seal_folder(other.data_dir)
        positions = [1, 256, 257, 512, 513, 768, 769, 900, *random.Random(5).sample(range(1, 901), 20)]
        for position in positions:
            text = await read_seal(none, mirror, proof_of(position))
            assert verify_proof(read_proof(text), keys).position == position
            assert text == proof_of(position)(seal_folder(session.data_dir))
        await append_events(session, 300, 900)
        await sealed(session, 1200)
        for position in (900, 901, 1024, 1025, 1200):
            assert await from_seal(other, proof_of(position)) == proof_of(position)(seal_folder(session.data_dir))
        assert not (tmp_path / "mirror" / "key").exists()
        assert not seal_folder(other.data_dir).is_begun


async def test_the_archive_elsewhere_is_that_of_the_seal(session: Session, tmp_path: Path) -> None:
    drafts = 700
    await record(session, drafts)
    async with running(session, ["seal"]), elsewhere(session, tmp_path / "other") as other:
        await sealed(session, drafts)
        kept = [archive_of(tmp_path / name) for name in ("here", "there")]
        reader, mirror = await other.connection("archive"), mirror_of(other, tmp_path / "mirror")
        seal = await mirror.refresh()
        await archive_log(await session.connection("archive"), session.log, kept[0], seal_folder(session.data_dir))
        await archive_log(reader, other.log, kept[1], seal, mirror=mirror)
        assert [one.last_position for one in kept] == [drafts, drafts]
        assert [part.sha256 for part in kept[0].parts()] == [part.sha256 for part in kept[1].parts()]


async def test_the_role_archive_waits_elsewhere_for_the_first_checkpoint(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.seal.archive_service._EVERY_SECONDS", 0.1)
    monkeypatch.setattr(seal_mirror, "_PATIENCE_SECONDS", 0.3)
    client = await session.connection("seal")
    began = asyncio.Event()

    async def reply_of_seal(message: Any) -> None:
        began.set()
        await message.respond(answer(seal_folder(session.data_dir), message.data))

    early = await client.subscribe(topology.SEAL_SUBJECT, cb=reply_of_seal)
    await client.flush()
    async with elsewhere(session, tmp_path / "other") as other, running(other, ["archive"]) as services:
        await asyncio.wait_for(began.wait(), 10)  # it is told that nothing is sealed yet
        await asyncio.sleep(0.3)
        assert not any(one.failed.done() for one in services)
        await early.unsubscribe()
        await record(session, 300)
        async with running(session, ["seal"]):
            archive = archive_of(other.data_dir)
            await eventually(lambda: asyncio.to_thread(lambda: archive.last_position), lambda found: found == 300)


async def test_without_a_seal_there_is_a_clear_answer(session: Session, tmp_path: Path) -> None:
    await append_events(session, 10)
    with pytest.raises(UnavailableError, match="no process with the role seal answers"):
        await read_seal(seal_folder(tmp_path), mirror_of(session, tmp_path / "mirror"), proof_of(1))


async def test_damaged_tiles_of_a_mirror_are_fetched_again(session: Session, tmp_path: Path) -> None:
    await append_events(session, 600)
    async with running(session, ["seal"]):
        await sealed(session, 600)
        mirror, none = mirror_of(session, tmp_path / "mirror"), seal_folder(tmp_path / "none")
        right = await read_seal(none, mirror, proof_of(300))
        files = [path for path in (tmp_path / "mirror").rglob("*") if path.is_file()]
        assert len(files) > 4
        for path in files:
            for damage in (b"", b"x", bytes(path.stat().st_size)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(damage)
                assert await read_seal(none, mirror, proof_of(300)) == right, (path, damage[:3])


@asynccontextmanager
async def answering(session: Session, change: Callable[[dict[str, Any]], dict[str, Any]]) -> AsyncIterator[None]:
    """Answer for the seal of a session, with changed answers."""
    client = await session.connection("seal")

    async def reply(message: Any) -> None:
        told = json.loads(answer(seal_folder(session.data_dir), message.data))
        await message.respond(json.dumps(change(told)).encode())

    subscription = await client.subscribe(topology.SEAL_SUBJECT, cb=reply)
    await client.flush()
    yield
    await subscription.unsubscribe()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_another_seal_than_the_ledgers_is_not_believed(session: Session, tmp_path: Path) -> None:
    await record(session, 300)
    await seal_to_the_end(session)
    forger = Signer.make("resolution-ledger/forged")
    true = {name: (session.data_dir / "seal" / name).read_text() for name in ("checkpoint", "verifiers")}
    forged = {
        "checkpoint": make_checkpoint("resolution-ledger/forged", 400, bytes(32), [forger]).note,
        "verifiers": forger.verifier.text() + "\n",
    }

    def change(reply: dict[str, Any]) -> dict[str, Any]:
        return reply | {"files": forged} if "files" in reply else reply

    mirror, unpinned = mirror_of(session, tmp_path / "mirror"), mirror_of(session, tmp_path / "unpinned")
    async with answering(session, lambda reply: reply):
        await read_seal(seal_folder(tmp_path / "none"), mirror, proof_of(7))
    before = contents(tmp_path / "mirror")
    async with answering(session, change):
        for one in (mirror, unpinned):
            with pytest.raises(NoteError, match="not the ledger's newest"):
                await one.refresh()
        forged |= {"verifiers": true["verifiers"] + forged["verifiers"]}
        with pytest.raises(NoteError, match="no signature"):
            await mirror.refresh()
        signer = seal_folder(session.data_dir).signer()
        forged |= true | {"checkpoint": make_checkpoint(signer.verifier.name, 299, bytes(32), [signer]).note}
        with pytest.raises(NoteError, match="an earlier one"):
            await mirror.refresh()
        forged["checkpoint"] = make_checkpoint(signer.verifier.name, 300, bytes(32), [signer]).note
        with pytest.raises(NoteError, match="two different logs of 300 events"):
            await mirror.refresh()
    assert contents(tmp_path / "mirror") == before
    assert not (tmp_path / "unpinned").exists()


async def test_an_archive_elsewhere_takes_no_tiles_that_the_checkpoint_does_not_sign(
    session: Session, tmp_path: Path
) -> None:
    await record(session, 900)
    await seal_to_the_end(session)
    archive, mirror = archive_of(tmp_path), mirror_of(session, tmp_path / "mirror")
    reader = await session.connection("archive")
    wrong = False

    def change(reply: dict[str, Any]) -> dict[str, Any]:
        if not (wrong and "hashes" in reply):
            return reply
        hashes = bytearray(base64.b64decode(reply["hashes"]))
        hashes[40] ^= 1
        return {"hashes": base64.b64encode(hashes).decode()}

    async with answering(session, change):
        seal = await mirror.refresh()
        wrong = True
        with pytest.raises(ProofError):
            await archive_log(reader, session.log, archive, seal, mirror=mirror)
        assert archive.last_position == 0
        wrong = False
        mirror.clear_tiles()
        await mirror.fetch_leaves(1, 300)
        tile = tmp_path / "mirror" / "tile" / "0" / "000"
        tile.write_bytes(bytes(tile.stat().st_size))
        assert await archive_log(reader, session.log, archive, seal, mirror=mirror) == 900
        signer = seal_folder(session.data_dir).signer()
        note = make_checkpoint(signer.verifier.name, 600, bytes(32), [signer]).note
        (archive.folder / "checkpoint").write_text(note)
        await record(session, 10)
        await seal_to_the_end(session)
        with pytest.raises(ProofError, match="not of the log that the archive's checkpoint of 600 events"):
            await archive_log(reader, session.log, archive, await mirror.refresh(), mirror=mirror)


def test_hashes_of_leaves_are_checked_up_to_the_root(tmp_path: Path) -> None:
    size = 66_000
    writer = TileWriter(tmp_path)
    writer.append([b"%d" % number for number in range(size)])
    writer.flush()
    Tiles(tmp_path, size).check(1, size, writer.root())
    for level, index, width in ((0, 0, 256), (0, 255, 256), (0, 257, 208), (1, 0, 256), (1, 1, 1), (2, 0, 1)):
        path = tmp_path / tile_path(level, index, width)
        right = path.read_bytes()
        path.write_bytes(bytes([right[0] ^ 1]) + right[1:])
        with pytest.raises(ProofError):
            Tiles(tmp_path, size).check(1, size, writer.root())
        path.write_bytes(right)
    for position in (1, 65_536, 65_537, 65_793, size):
        Tiles(tmp_path, size).check(position, position, writer.root())


async def test_a_mirror_keeps_the_widest_of_partial_tiles(session: Session, tmp_path: Path) -> None:
    mirror, none = mirror_of(session, tmp_path / "mirror"), seal_folder(tmp_path / "none")
    async with running(session, ["seal"]):
        for end in (5, 9, 200, 300):
            await append_events(session, end - await session.log.last_position(), await session.log.last_position())
            await sealed(session, end)
            await read_seal(none, mirror, proof_of(end))
            await mirror.fetch("tile/0/000")
            await mirror.fetch("tile/entries/000")
            kept = [path.name for path in (tmp_path / "mirror" / "tile").glob("*/000.p/*") if path.parts[-3] != "1"]
            assert kept == ([] if end > 256 else [str(end)] * 2)


async def test_a_replica_that_is_behind_is_no_difference_between_log_and_seal(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append_events(session, 300)
    mirror, none = mirror_of(session, tmp_path / "mirror"), seal_folder(tmp_path / "none")
    read = Log.read_batch

    async def behind(log: Log, subject: str, after: int, at_most: int) -> Any:
        batch, _ = await read(log, subject, after, at_most)
        cut = [one for one in batch if one.position <= 290][:40]
        return cut, not cut

    async with running(session, ["seal"]):
        await sealed(session, 300)
        monkeypatch.setattr(Log, "read_batch", behind)
        for position in (1, 200, 300):
            assert await read_seal(none, mirror, proof_of(position))
            await mirror.fetch(f"tile/entries/{(position - 1) // 256:03d}")
        entries = mirror._seal.tiles(300).entries(0)
        assert entries == seal_folder(session.data_dir).tiles(300).entries(0)


async def test_a_seal_answers_only_after_it_was_checked(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal_mirror, "_PATIENCE_SECONDS", 0.3)
    await append_events(session, 10)
    await seal_to_the_end(session)
    checking, check, goes_on = asyncio.Event(), Sealer.check, asyncio.Event()

    async def slow(sealer: Sealer, log: Log) -> None:
        checking.set()
        await goes_on.wait()
        await check(sealer, log)

    monkeypatch.setattr(Sealer, "check", slow)
    mirror = mirror_of(session, tmp_path / "mirror")
    async with running(session, ["seal"]):
        await asyncio.wait_for(checking.wait(), 10)
        with pytest.raises(UnavailableError):
            await mirror.refresh()
        goes_on.set()
        await eventually(mirror.refresh, passing=(UnavailableError,))


async def test_a_seal_that_was_left_behind_is_not_served(session: Session, tmp_path: Path) -> None:
    """Another machine has taken the seal over, and this one still has its folder."""
    await append_events(session, 300)
    await seal_to_the_end(session)
    left = tmp_path / "other" / "seal"
    shutil.copytree(session.data_dir / "seal", left)
    async with running(session, ["seal"]), elsewhere(session, tmp_path / "other") as other:
        mirror = mirror_of(other, tmp_path / "mirror")
        assert await mirror.is_newest(seal_folder(other.data_dir))
        await append_events(session, 100, 300)
        await sealed(session, 400)
        record = await SealRecord.open(session.client)
        await record.keep(seal_folder(session.data_dir).checkpoint())  # as it is once a minute
        assert (newest := (await folder_to_read(other)).checkpoint())
        assert newest.size == 400
        text = await read_seal(seal_folder(other.data_dir), mirror, proof_of(7))
        assert read_proof(text).checkpoint.size == 400


async def test_a_changed_log_proves_nothing_elsewhere(session: Session, tmp_path: Path) -> None:
    await append_events(session, 300)
    await seal_to_the_end(session)

    def change(events: list[Any]) -> None:
        events[41] = events[41]._replace(data=b'{"n": "changed"}')

    await rewrite_history(session, change)
    folder = seal_folder(session.data_dir)
    client = await session.connection("seal")

    async def reply_of_seal(message: Any) -> None:
        await message.respond(answer(folder, message.data))

    await client.subscribe(topology.SEAL_SUBJECT, cb=reply_of_seal)
    await client.flush()
    mirror = mirror_of(session, tmp_path / "mirror")
    with pytest.raises(ProofError, match="differs from the seal at position 42"):
        await read_seal(seal_folder(tmp_path / "none"), mirror, proof_of(50))
    assert not list((tmp_path / "mirror").glob("tile/entries/*"))


async def test_another_seal_replaces_the_mirror(session: Session, tmp_path: Path) -> None:
    from app.runtime.seal import begin_anew

    await append_events(session, 300)
    mirror, none = mirror_of(session, tmp_path / "mirror"), seal_folder(tmp_path / "none")
    async with running(session, ["seal"]):
        await sealed(session, 300)
        await read_seal(none, mirror, proof_of(7))
    for name in ("rotations", "cosigned"):
        (tmp_path / "mirror" / name).mkdir(exist_ok=True)
        (tmp_path / "mirror" / name / "7").write_text("of the seal that was lost")
    await begin_anew(session, "lost")
    async with running(session, ["seal"]):
        await sealed(session, 300)
        text = await read_seal(none, mirror, proof_of(7))
        assert verify_proof(read_proof(text), seal_folder(session.data_dir).verifiers()[:1]).position == 7
        assert not list((tmp_path / "mirror").glob("*/7"))


def test_hostile_requests_get_an_error(tmp_path: Path) -> None:
    folder = seal_folder(tmp_path)
    assert b"error" in answer(folder, b"{}")
    bodies: list[object] = [1, [], {"level": -1}, {"level": 9}, {"level": 0, "index": -1}, {"level": 0, "index": 2**60}]
    bodies += [{"level": "entries"}, {"level": 0, "index": 1.5}, {"level": 2**70}, {"path": "key"}]
    for body in (b"", b"\xff", b"[" * 9999, *(json.dumps(one).encode() for one in bodies)):
        assert set(json.loads(answer(folder, body))) == {"error"}, body


async def test_hostile_answers_are_no_files_outside_of_the_mirror(session: Session, tmp_path: Path) -> None:
    client = await session.connection("hostile")
    said: dict[str, object] = {}

    async def reply(message: Any) -> None:
        await message.respond(said["body"] if isinstance(said["body"], bytes) else json.dumps(said["body"]).encode())

    await client.subscribe(topology.SEAL_SUBJECT, cb=reply)
    await client.flush()
    mirror = mirror_of(session, tmp_path / "deep" / "mirror")
    notes = {"checkpoint": "x", "verifiers": "y"}
    body: object
    for body in (
        *(
            b"",
            b"[",
            {"files": {}},
            {"files": notes},
            {"files": notes | {"../out": "z"}},
            {"files": notes | {"key": "z"}},
        ),
        *({"files": notes | {"rotations/../../out": "z"}}, {"files": notes | {"/tmp/x": "z"}}, {"hashes": "AAAA"}),
    ):
        said["body"] = body
        with pytest.raises((UnavailableError, *SEAL_FAULTS)):
            await read_seal(seal_folder(tmp_path / "none"), mirror, proof_of(1))
    assert not (tmp_path / "deep" / "out").exists()
    assert not (tmp_path / "deep" / "mirror" / "key").exists()


async def test_a_dashboard_elsewhere_proves_and_lists_and_says_what_to_do(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal_mirror, "_PATIENCE_SECONDS", 0.5)
    await record(session, 300)
    async with (
        elsewhere(session, tmp_path / "other") as other,
        running(other, ["dashboard"], where=ListenAddress(port=0)) as services,
    ):
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        async with client_with_token(dashboard.address, dashboard.token) as client:
            async with running(session, ["seal"]):
                await sealed(session, 300)
                proof = await client.get("/api/v1/proof/290")
                assert proof.status_code == 200, proof.text
                assert proof.text == proof_of(290)(seal_folder(session.data_dir))
                (row,) = (await client.get("/api/v1/checkpoints")).json()["items"]
                assert (row["size"], row["verified"]) == (300, True)
                assert (await client.get("/api/v1/proof/301")).status_code == 404
            for path in ("proof/290", "checkpoints"):
                away = await client.get(f"/api/v1/{path}")
                assert (away.status_code, away.headers["Retry-After"]) == (503, "1")
                assert "start `resolution-ledger run seal`" in away.json()["detail"]
    shutil.rmtree(tmp_path / "other" / SEAL_MIRROR)
