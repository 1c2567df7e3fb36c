"""The seal at another machine: with the secret it goes on with the same key; without it, or over a changed log, never."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.runtime.seal import begin_anew, seal_to_the_end
from app.runtime.session import Session
from config.settings import SettingsError, load_settings
from consumers.seal.service import SealService, seal_log
from ledger.store.log import Log, Recorded
from ledger.transparency.seal_copy import SUBJECT
from ledger.transparency.seal_record import STREAM
from ledger.transparency.sealer import Sealer, SealError, SealFolder, seal_folder
from ledger.transparency.signed_notes import NoteError
from tests.support.sealed_logs import append_events
from tests.support.waiting import eventually

SECRET = "s" * 32
pytestmark = pytest.mark.integration


async def seals(session: Session, folder: SealFolder, secret: str | None = SECRET) -> None:
    end = await session.log.last_position()
    await seal_log(await session.connection("seal"), session.log, folder, until=end, secret=secret)


async def test_another_machine_goes_on_with_the_same_key_and_tree(session: Session, tmp_path: Path) -> None:
    await append_events(session)
    first, second = seal_folder(session.data_dir), SealFolder(tmp_path / "second" / "seal")
    await seals(session, first)
    before = first.checkpoint()
    await append_events(session)
    await seals(session, second)
    after = second.checkpoint()
    assert before is not None
    assert after is not None
    assert after.size > before.size
    assert after.signed_by(first.verifiers())
    assert second.tiles(after.size).root_at(before.size) == before.root
    assert (second.folder / "key").stat().st_mode & 0o777 == 0o600


async def test_an_interrupted_take_over_begins_again(session: Session, tmp_path: Path) -> None:
    await append_events(session)
    first, second = seal_folder(session.data_dir), SealFolder(tmp_path / "second" / "seal")
    await seals(session, first)
    for left in (("rotations",), ("verifiers",), ("verifiers", "key"), ("verifiers", "key", "tile")):
        shutil.rmtree(second.folder, ignore_errors=True)
        second.folder.mkdir(parents=True)
        for name in left:
            source = first.folder / name
            if source.is_dir():
                shutil.copytree(source, second.folder / name)
            elif source.exists():
                shutil.copy(source, second.folder / name)
        await seals(session, second)
        assert second.checkpoint() is not None


async def test_without_the_secret_or_with_another_one_nothing_is_signed(session: Session, tmp_path: Path) -> None:
    await append_events(session)
    await seals(session, seal_folder(session.data_dir))
    second = SealFolder(tmp_path / "second" / "seal")
    with pytest.raises(SealError, match="is not at"):
        await seals(session, second, None)
    with pytest.raises(NoteError, match="seal_secret is another one"):
        await seals(session, second, "t" * 32)
    assert not second.is_begun


async def test_a_changed_log_is_not_signed_at_another_machine(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append_events(session)
    await seals(session, seal_folder(session.data_dir))
    second = SealFolder(tmp_path / "second" / "seal")

    real = Sealer.take

    def changed(sealer: Sealer, batch: Sequence[Recorded]) -> None:
        real(sealer, [one._replace(data=one.data + b" ") for one in batch])

    monkeypatch.setattr(Sealer, "take", changed)
    with pytest.raises(SealError, match="differs from the server's recorded checkpoint"):
        await seals(session, second)
    assert second.checkpoint() is None


async def test_the_copy_follows_rotations_and_a_seal_that_is_begun_anew(session: Session, tmp_path: Path) -> None:
    session.settings = load_settings({"data_dir": str(session.data_dir)}, {"RESOLUTION_LEDGER_SEAL_SECRET": SECRET})
    await append_events(session)
    first = seal_folder(session.data_dir)
    await seal_to_the_end(session)
    first.rotate()
    await append_events(session)
    await seal_to_the_end(session)
    second = SealFolder(tmp_path / "second" / "seal")
    await seals(session, second)
    assert second.small_files() == first.small_files()
    verifier, _ = await begin_anew(session, "the key was shown to somebody")
    third = SealFolder(tmp_path / "third" / "seal")
    await seals(session, third)
    assert third.verifiers() == [verifier]


async def test_the_server_holds_no_readable_key(session: Session) -> None:
    await append_events(session)
    folder = seal_folder(session.data_dir)
    await seals(session, folder)
    stored = await (await Log.unstamped(session.client, STREAM)).last(SUBJECT)
    assert stored is not None
    for part in (folder.folder / "key").read_text().split("+"):
        assert part.strip().encode() not in stored.data
    assert set(json.loads(stored.data)) == {"salt", "nonce", "data"}


async def test_a_service_elsewhere_stands_by_and_takes_over(session: Session, tmp_path: Path) -> None:
    await append_events(session)
    folders = [session.data_dir, tmp_path / "second"]
    services = [SealService(session.server, session.client, session.log, one, secret=SECRET) for one in folders]
    await services[0].start()
    first, second = (seal_folder(one) for one in folders)
    await eventually(lambda: asyncio.to_thread(first.checkpoint))
    await services[1].start()
    await asyncio.sleep(0.5)
    assert not second.is_begun
    await services[0].stop()
    await append_events(session)
    end = await session.log.last_position()
    newest = await eventually(
        lambda: asyncio.to_thread(second.checkpoint), lambda found: found is not None and found.size == end
    )
    assert newest is not None
    assert newest.signed_by(first.verifiers())
    await services[1].stop()


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(SettingsError, match="openssl rand"):
        load_settings({}, {"RESOLUTION_LEDGER_SEAL_SECRET": "short"})
