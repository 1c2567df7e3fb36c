"""The seal of another machine: its public files and tiles, asked for over NATS and kept in a folder of this one.

The process that seals answers. No answer is larger than one tile of hashes: entries are made from the log, and kept
only where their hashes are the sealed ones. The folder is derived, and may be deleted.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec
import nats.errors

from ledger.errors import UnavailableError
from ledger.files import write_atomically
from ledger.transparency.merkle import ProofError, leaf_hash
from ledger.transparency.seal_record import SealRecord, SealTrace
from ledger.transparency.sealer import SealFolder, encode_entry, encode_gap
from ledger.transparency.signed_notes import NoteError
from ledger.transparency.tiles import WIDTH, MissingTileError, encode_bundle, split_hashes, tile_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ledger.store.log import Log, Recorded
    from ledger.transparency.signed_notes import Checkpoint, Verifier
    from ledger.transparency.tiles import Tiles

SEAL_MIRROR = "seal-mirror"
"""The folder of a data directory that holds the files of another machine's seal."""
_PATH = re.compile(r"tile/(entries|[0-9])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/[0-9]{1,3})?", re.ASCII)
_FILE = re.compile(r"checkpoint|verifiers|(?:rotations|cosigned)/[0-9]{1,16}", re.ASCII)
_LEVELS = 8
_FILES_BYTES = 800_000
_PATIENCE_SECONDS = 3.0
_AT_ONCE = 64
SEAL_FAULTS = (AssertionError, MissingTileError, NoteError, ProofError, ValueError)
"""The errors of code that reads a seal's files: they are missing, damaged, or do not reach far enough."""
NO_SEAL = (
    "no process with the role seal answers: start `resolution-ledger run seal` at the machine that seals, or take the "
    "seal over at another one (`admin seal take-over`)"
)


class _Request(msgspec.Struct, omit_defaults=True):
    """A request for the hashes of a tile or, without a level, for the small files."""

    level: int | None = None
    index: int = 0


class _Reply(msgspec.Struct, omit_defaults=True):
    """The small files by their paths in the folder, the hashes of a tile, or the reason for having none."""

    files: dict[str, str] = {}
    hashes: bytes = b""
    error: str = ""


def answer(folder: SealFolder, body: bytes) -> bytes:
    """Return the answer of a process that seals in a folder."""
    try:
        asked, newest = msgspec.json.decode(body, type=_Request), folder.checkpoint()
        if newest is None:
            reply = _Reply(error="nothing is sealed yet")
        elif asked.level is None:
            reply = _Reply(files=folder.public_files(_FILES_BYTES))
        elif not (0 <= asked.level <= _LEVELS and 0 <= asked.index < (newest.size >> (8 * asked.level)) / WIDTH):
            reply = _Reply(error="the seal has no such tile yet")
        else:
            reply = _Reply(hashes=folder.tiles(newest.size).hashes(asked.level, asked.index))
    except (msgspec.MsgspecError, OSError, *SEAL_FAULTS) as error:
        reply = _Reply(error=str(error) or "the seal cannot be read")
    return msgspec.json.encode(reply)


class _ReceivedFiles(SealFolder):
    """The small files of another machine's seal, before they are kept."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        super().__init__(folder, is_mirror=True)
        self._files = files

    def _text(self, name: str) -> str | None:
        return self._files.get(name)

    def _names(self, name: str) -> list[str]:
        return [path.rpartition("/")[2] for path in self._files if path.startswith(f"{name}/")]


class SealMirror:
    """The files of a seal, as far as they were asked for."""

    def __init__(self, log: Log, subject: str, folder: Path) -> None:
        """``subject`` is that to which the process that seals answers; ``folder`` holds the files."""
        self._log, self._subject = log, subject
        self._seal = SealFolder(folder, is_mirror=True)

    async def refresh(self) -> SealFolder:
        """Return the folder with the newest checkpoint.

        Raises:
            UnavailableError: no process that seals answers.
            NoteError: it has no checkpoint, one that its keys have not signed, or another seal than the ledger's.
        """
        files = (await self._ask(_Request())).files
        if {"checkpoint", "verifiers"} - files.keys() or not all(map(_FILE.fullmatch, files)):
            raise NoteError("the process that seals gives no checkpoint")
        received = _ReceivedFiles(self._seal.folder, files)
        newest = received.checkpoint()
        if newest is None or not newest.signed_by(received.trusted()):
            raise NoteError("the checkpoint of the process that seals has no signature of its keys")
        first, kept = received.verifiers()[0], self._kept()
        if kept is None or kept[0] != first or kept[1].size > newest.size:
            if objection := _objection(await self._record(), first, newest):
                raise NoteError(objection)
            self.clear_tiles()
        elif kept[1].size == newest.size and kept[1].root != newest.root:
            raise NoteError(f"the process that seals has signed two different logs of {newest.size:,} events")
        self._keep(files)
        return self._seal

    def _kept(self) -> tuple[Verifier, Checkpoint] | None:
        """Return the first key and the checkpoint of the seal that is kept; none where one of them cannot be read."""
        try:
            keys, newest = self._seal.verifiers(), self._seal.checkpoint()
        except NoteError:
            return None
        return (keys[0], newest) if keys and newest is not None else None

    async def is_newest(self, local: SealFolder) -> bool:
        """Return whether no other machine has gone on with a seal of this one, as far as that can be known now."""
        try:
            record = await self._record()  # first, since the seal may grow meanwhile
            keys, newest = local.verifiers(), local.checkpoint()
        except (UnavailableError, NoteError):
            return True
        return not (record.begun and keys and newest is not None and _objection(record, keys[0], newest))

    async def _record(self) -> SealTrace:
        return await (await SealRecord.open(self._log.client)).read()

    def _keep(self, files: dict[str, str]) -> None:
        """Replace the small files; the checkpoint comes last."""
        folder = self._seal.folder
        for name in sorted(files, key=lambda name: name == "checkpoint"):
            path = folder / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, files[name].encode())
        for path in (*folder.glob("rotations/*"), *folder.glob("cosigned/*")):
            if path.relative_to(folder).as_posix() not in files:
                path.unlink(missing_ok=True)

    def clear_tiles(self) -> None:
        """Forget all tiles."""
        shutil.rmtree(self._seal.folder / "tile", ignore_errors=True)

    async def fetch(self, path: str) -> None:
        """Fetch the tile with this path in the folder, or a wider one.

        Raises:
            UnavailableError: no process that seals answers, or the log does not.
            ProofError: the log differs from the seal.
            NoteError: the process that seals has no such tile.
        """
        found = _PATH.fullmatch(path)
        if found is None:
            raise NoteError(f"{path} is no tile")
        index = int(found[2].replace("x", "").replace("/", ""))
        await (self._make_entries(index) if found[1] == "entries" else self._fetch_hashes(int(found[1]), index))

    async def checked_tiles(self, newest: Checkpoint, first: int, last: int) -> Tiles:
        """Return tiles whose hashes of these positions belong to a checkpoint's root; wrong ones are fetched once more.

        Raises:
            UnavailableError, NoteError: see ``fetch``.
            ProofError: the process that seals gives wrong tiles.
        """

        def check(seal: SealFolder) -> Tiles:
            tiles = seal.tiles(newest.size)
            tiles.check(first, last, newest.root)
            return tiles

        await self.fetch_leaves(first, last)
        try:
            return await self.read(check)
        except ProofError:
            self.clear_tiles()  # one of them may be damaged
            await self.fetch_leaves(first, last)
            return await self.read(check)

    async def read[T](self, make: Callable[[SealFolder], T]) -> T:
        """Return a value that ``make`` reads from the folder; tiles that it misses are fetched.

        Raises:
            UnavailableError, NoteError, ProofError: see ``fetch``.
            MissingTileError: a tile that was fetched has not enough hashes.
        """
        missing = ""
        while True:
            try:
                return await asyncio.to_thread(make, self._seal)
            except MissingTileError as error:
                if error.path == missing:
                    raise
                missing = error.path
            await self.fetch(missing)

    async def fetch_leaves(self, first: int, last: int) -> None:
        """Fetch the tiles with the hashes of these positions, of which the first is 1, where they are missing.

        Raises:
            UnavailableError, NoteError: see ``fetch``.
        """
        newest = self._seal.checkpoint()
        tiles = self._seal.tiles(newest.size if newest else 0)

        async def one(index: int) -> None:
            try:
                tiles.hashes(0, index)
            except MissingTileError:
                await self._fetch_hashes(0, index)

        numbers = range((first - 1) // WIDTH, -(-last // WIDTH))
        for begin in range(0, len(numbers), _AT_ONCE):
            await asyncio.gather(*map(one, numbers[begin : begin + _AT_ONCE]))

    async def _fetch_hashes(self, level: int, index: int) -> None:
        hashes = (await self._ask(_Request(level, index))).hashes
        self._write(level, index, hashes, len(split_hashes(hashes)))

    async def _make_entries(self, index: int) -> None:
        newest = self._seal.checkpoint()
        if newest is None:
            raise NoteError("nothing is sealed yet")
        begin, end = WIDTH * index, min(WIDTH * (index + 1), newest.size)
        await self.fetch_leaves(begin + 1, end)
        sealed = self._seal.tiles(newest.size).leaves(begin + 1, end)
        events = await self._events(begin, end)
        entries = [
            encode_gap(position) if position not in events else encode_entry(*events[position])
            for position in range(begin + 1, end + 1)
        ]
        for position, (entry, hash_) in enumerate(zip(entries, sealed, strict=True), begin + 1):
            if leaf_hash(entry) != hash_:
                raise ProofError(f"the log differs from the seal at position {position}: run `audit verify`")
        self._write("entries", index, encode_bundle(entries), len(entries))

    async def _events(self, begin: int, end: int) -> dict[int, Recorded]:
        """Return the events after a position up to another; those that a replica lacks come from the leader."""
        after, is_complete = begin, False
        events: dict[int, Recorded] = {}
        while after < end and not is_complete:
            batch, is_complete = await self._log.read_batch(">", after, end - after)
            events |= {one.position: one for one in batch}
            after = batch[-1].position if batch else end
        position = begin + 1
        while position <= end:
            if position not in events:
                newer = await self._log.read_from_leader(">", position - 1)
                if newer is None:
                    break
                position = newer.position
                events[position] = newer
            position += 1
        return events

    def _write(self, level: int | str, index: int, data: bytes, width: int) -> None:
        """Write a tile, and remove narrower ones in its place."""
        path = self._seal.folder / tile_path(level, index, width)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        full = self._seal.folder / tile_path(level, index)
        for one in full.with_name(f"{full.name}.p").glob("[0-9]*"):
            if one.name.isdecimal() and int(one.name) < width:
                one.unlink(missing_ok=True)

    async def _ask(self, request: _Request) -> _Reply:
        try:
            sent = self._log.client.request(self._subject, msgspec.json.encode(request), timeout=_PATIENCE_SECONDS)
            reply = msgspec.json.decode((await sent).data, type=_Reply)
        except (nats.errors.Error, TimeoutError, msgspec.MsgspecError) as error:
            raise UnavailableError(NO_SEAL) from error
        if reply.error:
            raise NoteError(reply.error)
        return reply


def _objection(record: SealTrace, first: Verifier, newest: Checkpoint) -> str:
    """Return why a seal is not the one that was begun last, as far as the server's record knows it; empty if it is."""
    if not record.begun or record.begun[-1].verifier != first.text():
        return f"the process that answers has a seal with the key {first.text()}, not the ledger's newest"
    if record.checkpoint is not None and record.checkpoint.size > newest.size:
        return f"the process that answers has a seal of {newest.size:,} events, which is an earlier one"
    return ""


async def read_seal[T](local: SealFolder, mirror: SealMirror, make: Callable[[SealFolder], T]) -> T:
    """Return a value that ``make`` reads from a seal: this machine's, unless another one has gone on with it, else its.

    Raises:
        UnavailableError: no seal is here, and no process that seals answers.
        AssertionError, LedgerError, ValueError: what ``make`` raises where the seal does not have what it needs.
    """
    if local.is_begun and await mirror.is_newest(local):
        try:
            return await asyncio.to_thread(make, local)
        except SEAL_FAULTS as fault:
            try:
                return await _read_mirror(mirror, make)
            except (UnavailableError, *SEAL_FAULTS):
                raise fault from None
    try:
        return await _read_mirror(mirror, make)
    except ProofError:
        mirror.clear_tiles()  # one of them may be damaged
        return await _read_mirror(mirror, make)


async def _read_mirror[T](mirror: SealMirror, make: Callable[[SealFolder], T]) -> T:
    await mirror.refresh()
    return await mirror.read(make)
