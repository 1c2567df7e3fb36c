"""Several processes compare the archive with the seal, and find the same damage as one process."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.runtime import archive_chunks, child_processes
from app.runtime.archive import verify_archive
from app.runtime.archive_chunks import ChunkReport, ChunkShare, verify_chunks
from config.settings import load_settings
from ledger.archive.event_archive import Archive
from ledger.archive.parquet import parquet_bytes, read_batches
from ledger.archive.verification import CHUNK
from ledger.errors import UnavailableError
from ledger.store.log import Recorded
from ledger.transparency.sealer import SealFolder, encode_entry
from ledger.transparency.signed_notes import make_checkpoint
from ledger.transparency.tiles import TileWriter, tile_path
from tests.support.environment import long_only

pytestmark = pytest.mark.integration

SETTINGS = load_settings({}, {})
EVENTS = 2 * CHUNK + 300
EVENT = b'{"id":"%d","source":"s","type":"t","time":"2026-01-05T10:00:00Z","recordedtime":"2026-01-05T10:00:00Z"}'


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an archive of three chunks and its seal."""
    folder = tmp_path_factory.mktemp("sealed")
    seal, archive = SealFolder(folder / "seal"), Archive(folder / "archive")
    signer, tiles = seal.begin(), TileWriter(seal.folder)
    events = [Recorded(position, "ledger.fact.a", EVENT % position) for position in range(1, EVENTS + 1)]
    tiles.append([encode_entry(*event) for event in events])
    tiles.flush()
    note = make_checkpoint(signer.verifier.name, EVENTS, seal.tiles(EVENTS).root(), [signer]).note
    (seal.folder / "checkpoint").write_text(note, encoding="utf-8")
    archive.add(events, note, signer.verifier.text() + "\n")
    assert [part.first for part in archive.parts()] == [1, CHUNK + 1, 2 * CHUNK + 1]
    return folder


@pytest.fixture
def copy(sealed: Path, tmp_path: Path) -> Path:
    """Return a copy of that folder, whose files are links: a test replaces or removes them."""
    for path in sealed.rglob("*"):
        target = tmp_path / path.relative_to(sealed)
        if path.is_dir():
            target.mkdir()
        else:
            target.hardlink_to(path)
    return tmp_path


def share_of(folder: Path) -> ChunkShare:
    return ChunkShare(str(folder / "archive"), str(folder / "seal"), EVENTS, EVENTS)


async def verified(folder: Path, processes: int) -> list[ChunkReport]:
    return await verify_chunks(share_of(folder), SETTINGS, lambda _done: None, processes)


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def edit(path: Path, change: Callable[[list[Recorded]], None]) -> None:
    events = [event for batch in read_batches(path) for event in batch]
    change(events)
    replace(path, parquet_bytes(events))


def file_of(folder: Path, chunk: int) -> Path:
    archive = Archive(folder / "archive")
    return archive.path_of(archive.parts()[chunk])


async def test_two_processes_find_an_archive_as_sealed(sealed: Path) -> None:
    seal, done = SealFolder(sealed / "seal"), list[int]()
    found = await verify_archive(sealed / "archive", seal, (), lambda at, _of: done.append(at), SETTINGS, 2)
    assert (found, done) == ([], [CHUNK, 2 * CHUNK, EVENTS])


def flip_a_byte(folder: Path) -> None:
    path = file_of(folder, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    replace(path, bytes(data))


def remove_a_tile(folder: Path) -> None:
    (folder / "seal" / tile_path(0, 300)).unlink()


def remove_a_position(folder: Path) -> None:
    edit(file_of(folder, 1), lambda events: events.pop(99) and None)


def remove_files(folder: Path) -> None:
    """Remove the last two files: one process for each."""
    for chunk in (1, 2):
        file_of(folder, chunk).unlink()


@pytest.mark.parametrize(
    ("damage", "position", "text"),
    [
        pytest.param(flip_a_byte, CHUNK + 1, "65537-131072.parquet cannot be read", marks=long_only),
        pytest.param(remove_a_position, 2 * CHUNK, "the archive lacks a position", marks=long_only),
        pytest.param(remove_a_tile, 1, f"the tile {tile_path(0, 300)} is missing or damaged", marks=long_only),
        (remove_files, CHUNK + 1, "65537-131072.parquet cannot be read"),
    ],
)
async def test_damage_is_found_as_by_one_process(
    copy: Path, damage: Callable[[Path], None], position: int, text: str
) -> None:
    damage(copy)
    alone, together = await verified(copy, 1), await verified(copy, 2)
    first = next(one for one in together if one.damage)
    assert first == alone[-1]
    assert (first.damaged_at, text in first.damage) == (position, True)


@long_only
async def test_every_edited_event_is_found(copy: Path) -> None:
    """Their positions take more than one line of a process."""

    def change(events: list[Recorded]) -> None:
        events[100:20_100] = [one._replace(data=one.data + b" ") for one in events[100:20_100]]

    edit(file_of(copy, 1), change)
    reports = await verified(copy, 2)
    assert [at for one in reports for at in one.wrong] == list(range(CHUNK + 101, CHUNK + 20_101))
    assert reports == await verified(copy, 1)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.subprocess.Process]:
    """Note the processes that are started; the first is stopped at once, so it verifies nothing."""
    processes = list[asyncio.subprocess.Process]()

    @asynccontextmanager
    async def noted(*given: Any, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
        async with child_processes.child(*given, **options) as process:
            processes.append(process)
            if len(processes) == 1:
                process.send_signal(signal.SIGSTOP)
            yield process

    monkeypatch.setattr(archive_chunks, "child", noted)
    return processes


async def test_a_process_that_is_killed_is_an_error(sealed: Path, started: list[asyncio.subprocess.Process]) -> None:
    with pytest.raises(UnavailableError, match="a process that verifies the archive has ended with status -9"):
        await verify_chunks(share_of(sealed), SETTINGS, lambda _done: started[0].kill(), 2)
    assert None not in [one.returncode for one in started]


@long_only
async def test_processes_end_when_the_command_is_interrupted(
    sealed: Path, started: list[asyncio.subprocess.Process]
) -> None:
    """Ctrl-C cancels the task of a command."""

    def interrupt(_done: int) -> None:
        started[0].send_signal(signal.SIGCONT)
        work.cancel()

    work = asyncio.create_task(verify_chunks(share_of(sealed), SETTINGS, interrupt, 2))
    with pytest.raises(asyncio.CancelledError):
        await work
    assert None not in [one.returncode for one in started]
