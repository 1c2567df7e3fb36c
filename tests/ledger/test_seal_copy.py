"""The seal at another machine: an operator takes it over by the secret, never over a changed log or a newer key."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.runtime import seal as seal_commands
from app.runtime.seal import begin_anew, seal_to_the_end
from app.runtime.session import Session
from config.settings import SettingsError, load_settings
from consumers.seal.service import SealService
from ledger.store.log import Log, Recorded
from ledger.transparency import alarm
from ledger.transparency.seal_copy import SUBJECT, SealCopyError
from ledger.transparency.seal_record import STREAM
from ledger.transparency.sealer import Sealer, SealError, SealFolder, seal_folder
from tests.support.sealed_logs import append_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECRET = "s" * 32
pytestmark = pytest.mark.integration


@contextmanager
def at(session: Session, folder: Path, secret: str | None = SECRET) -> Iterator[SealFolder]:
    """Let a session's commands work at another machine, with its own data directory and secret."""
    kept = session.data_dir, session.settings
    environment = {"RESOLUTION_LEDGER_SEAL_SECRET": secret} if secret else {}
    session.data_dir, session.settings = folder, load_settings({"data_dir": str(folder)}, environment)
    try:
        yield seal_folder(folder)
    finally:
        session.data_dir, session.settings = kept


async def sealed_at_the_first(session: Session) -> SealFolder:
    await append_events(session)
    with at(session, session.data_dir) as first:
        await seal_to_the_end(session)
    return first


async def test_another_machine_goes_on_with_the_same_key_and_tree(session: Session, tmp_path: Path) -> None:
    first = await sealed_at_the_first(session)
    before = first.checkpoint()
    await append_events(session)
    with at(session, tmp_path / "second") as second:
        assert await seal_commands.take_over(session) == await session.log.last_position()
    after = second.checkpoint()
    assert before is not None
    assert after is not None
    assert after.size > before.size
    assert after.signed_by(first.verifiers())
    assert second.tiles(after.size).root_at(before.size) == before.root
    assert (second.folder / "key").stat().st_mode & 0o777 == 0o600
    assert not second.is_taken_over
    await append_events(session)
    with at(session, tmp_path / "second"):
        await seal_to_the_end(session)


async def test_an_interrupted_take_over_begins_again(session: Session, tmp_path: Path) -> None:
    first = await sealed_at_the_first(session)
    for number, left in enumerate((("taken-over",), ("taken-over", "verifiers"), ("taken-over", "verifiers", "key"))):
        with at(session, tmp_path / str(number)) as second:
            second.folder.mkdir(parents=True)
            for name in left:
                (second.folder / name).write_bytes((first.folder / name).read_bytes() if name != "taken-over" else b"")
            await seal_commands.take_over(session)
            assert second.checkpoint() is not None


async def test_without_the_secret_the_copy_or_an_empty_folder_nothing_is_taken_over(
    session: Session, tmp_path: Path
) -> None:
    await append_events(session)
    with at(session, tmp_path / "early"), pytest.raises(SealCopyError, match="has no copy"):
        await seal_commands.take_over(session)
    await sealed_at_the_first(session)
    for secret, wrong in ((None, "set RESOLUTION_LEDGER_SEAL_SECRET"), ("t" * 32, "seal_secret is another one")):
        with at(session, tmp_path / "second", secret) as second, pytest.raises(SealCopyError, match=wrong):
            await seal_commands.take_over(session)
        assert not second.is_begun
    with at(session, session.data_dir), pytest.raises(SealCopyError, match="holds a seal already"):
        await seal_commands.take_over(session)
    assert await alarm.read_alarm(session.client) is None


async def test_a_changed_log_is_not_signed_at_another_machine(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed_at_the_first(session)
    real = Sealer.take

    def changed(sealer: Sealer, batch: Sequence[Recorded]) -> None:
        real(sealer, [one._replace(data=one.data + b" ") for one in batch])

    monkeypatch.setattr(Sealer, "take", changed)
    with (
        at(session, tmp_path / "second") as second,
        pytest.raises(SealError, match="differs from the server's recorded"),
    ):
        await seal_commands.take_over(session)
    assert second.checkpoint() is None


@pytest.mark.parametrize("newer", ["a rotation", "a seal begun anew"])
async def test_a_folder_that_was_left_behind_signs_nothing_and_raises_no_alarm(
    session: Session, tmp_path: Path, newer: str
) -> None:
    first = await sealed_at_the_first(session)
    with at(session, tmp_path / "second") as second:
        await seal_commands.take_over(session)
        if newer == "a rotation":
            second.rotate()
        else:
            await begin_anew(session, "the key was shown to somebody")
        await append_events(session)
        await seal_to_the_end(session)
    before = first.checkpoint()
    with at(session, session.data_dir):
        service = SealService(session.server, session.client, session.log, session.data_dir, secret=SECRET)
        await service.start()
        with pytest.raises(SealCopyError, match="was left behind"):
            await service.failed
        await service.stop()
    assert first.checkpoint() == before
    assert await alarm.read_alarm(session.client) is None
    with at(session, tmp_path / "third") as third:
        await seal_commands.take_over(session)
    assert third.small_files() == second.small_files()


async def test_a_seal_begun_anew_replaces_the_copy_before_it_is_recorded(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, nobody can take over the old key any more."""
    first = await sealed_at_the_first(session)
    old = first.signer().verifier

    async def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, at(session, session.data_dir):
        patch.setattr("ledger.transparency.seal_record.SealRecord.begin", killed)
        with pytest.raises(KeyboardInterrupt):
            await begin_anew(session, "the key was shown to somebody")
    with at(session, tmp_path / "second") as second, pytest.raises(SealError):
        await seal_commands.take_over(session)
    assert old not in second.verifiers()


async def test_the_server_holds_no_readable_key(session: Session) -> None:
    folder = await sealed_at_the_first(session)
    stored = await (await Log.unstamped(session.client, STREAM)).last(SUBJECT)
    assert stored is not None
    for part in (folder.folder / "key").read_text().split("+"):
        assert part.strip().encode() not in stored.data
    assert set(json.loads(stored.data)) == {"salt", "nonce", "data"}


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(SettingsError, match="openssl rand"):
        load_settings({}, {"RESOLUTION_LEDGER_SEAL_SECRET": "short"})
