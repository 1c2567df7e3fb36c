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
from ledger.transparency.sealer import SealFolder, encode_entry, encode_gap
from ledger.transparency.signed_notes import NoteError
from ledger.transparency.tiles import WIDTH, MissingTileError, encode_bundle, split_hashes, tile_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ledger.store.log import Log

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
            NoteError: it has no checkpoint, or one that its keys have not signed.
        """
        files = (await self._ask(_Request())).files
        if {"checkpoint", "verifiers"} - files.keys() or not all(map(_FILE.fullmatch, files)):
            raise NoteError("the process that seals gives no checkpoint")
        kept = self._seal.folder
        before = self._kept_size(files["checkpoint"].partition("\n")[0])
        for name in sorted(files, key=lambda name: name == "checkpoint"):  # it comes last
            path = kept / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, files[name].encode())
        newest = self._seal.checkpoint()
        if newest is None or not newest.signed_by(self._seal.trusted()):
            raise NoteError("the checkpoint of the process that seals has no signature of its keys")
        if before > newest.size:
            self.clear_tiles()
        return self._seal

    def _kept_size(self, origin: str) -> int:
        """Return the size of the seal that is kept; more than any size where it is another seal."""
        try:
            kept = self._seal.checkpoint()
        except NoteError:
            return 2**63
        return 0 if kept is None else kept.size if kept.origin == origin else 2**63

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
        events = {one.position: one for one in (await self._log.read_batch(">", begin, end - begin))[0]}
        entries = [
            encode_gap(position) if position not in events else encode_entry(*events[position])
            for position in range(begin + 1, end + 1)
        ]
        for position, (entry, hash_) in enumerate(zip(entries, sealed, strict=True), begin + 1):
            if leaf_hash(entry) != hash_:
                raise ProofError(f"the log differs from the seal at position {position}: run `audit verify`")
        self._write("entries", index, encode_bundle(entries), len(entries))

    def _write(self, level: int | str, index: int, data: bytes, width: int) -> None:
        path = self._seal.folder / tile_path(level, index, width)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)

    async def _ask(self, request: _Request) -> _Reply:
        try:
            sent = self._log.client.request(self._subject, msgspec.json.encode(request), timeout=_PATIENCE_SECONDS)
            reply = msgspec.json.decode((await sent).data, type=_Reply)
        except (nats.errors.Error, TimeoutError, msgspec.MsgspecError) as error:
            raise UnavailableError(NO_SEAL) from error
        if reply.error:
            raise NoteError(reply.error)
        return reply


async def read_seal[T](local: SealFolder, mirror: SealMirror, make: Callable[[SealFolder], T]) -> T:
    """Return a value that ``make`` reads from a seal: that of this machine, else that of the machine that seals.

    Raises:
        UnavailableError: no seal is here, and no process that seals answers.
        AssertionError, LedgerError, ValueError: what ``make`` raises where the seal does not have what it needs.
    """
    if local.is_begun:
        try:
            return await asyncio.to_thread(make, local)
        except SEAL_FAULTS as fault:  # the seal was left behind here, for example
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
    seal, missing = await mirror.refresh(), ""
    while True:
        try:
            return await asyncio.to_thread(make, seal)
        except MissingTileError as error:
            if error.path == missing:
                raise
            missing = error.path
        await mirror.fetch(missing)
