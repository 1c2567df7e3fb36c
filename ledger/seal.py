"""The seal: a Merkle log over the stream in its order, tiles and signed checkpoints in a folder (docs/auditing.md)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from ledger.errors import LedgerError
from ledger.files import write_whole
from ledger.notes import Checkpoint, NoteError, Signer, Verifier, make_checkpoint, read_checkpoint
from ledger.server import write_private
from ledger.tiles import MAX_ENTRY_BYTES, DifferentTileError, MissingTileError, Tiles, TileWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ledger.log import Log, Recorded

GAP_SUBJECT = "ledger.gap"
"""Where a restored log has a message instead of an event that was lost before it was sealed."""
_GAP, _EVENT = 0, 1
_HEAD_BYTES = 11


class SealError(LedgerError):
    """The seal and the log disagree, or the seal itself is damaged: nothing may be written until somebody looked."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(
            f"{what} (position {position}): the log is not what was sealed. Nothing is written until somebody has "
            "looked: run `resolution-ledger audit verify`, then `resolution-ledger admin alarm`"
        )
        self.position = position


class Entry(NamedTuple):
    """A leaf read back: an event, or the place of one that was lost before it could be sealed (no subject)."""

    position: int
    subject: str
    data: bytes

    @property
    def is_gap(self) -> bool:
        """Whether there was no event to seal."""
        return not self.subject


def entry_of(position: int, subject: str, data: bytes) -> bytes:
    """A leaf: a byte 1, the position (64 bits), the subject's length (16 bits) and bytes, the event's bytes.

    Numbers are big-endian. For a lost event: a byte 0 and the position.
    """
    if subject == GAP_SUBJECT:
        return gap_entry(position)
    name = subject.encode()
    return b"\x01" + position.to_bytes(8) + len(name).to_bytes(2) + name + data


def gap_entry(position: int) -> bytes:
    """The leaf of a position at which there was no event."""
    return b"\x00" + position.to_bytes(8)


def read_entry(entry: bytes) -> Entry:
    """What a leaf says.

    Raises:
        ValueError: it is no leaf of ours.

    """
    if len(entry) < 9 or entry[0] not in (_GAP, _EVENT):  # noqa: PLR2004 - kind and position
        raise ValueError("no entry of this ledger")
    position = int.from_bytes(entry[1:9])
    if entry[0] == _GAP:
        return Entry(position, "", b"")
    end = _HEAD_BYTES + int.from_bytes(entry[9:_HEAD_BYTES])
    return Entry(position, entry[_HEAD_BYTES:end].decode(), entry[end:])


class SealFolder:
    """The files of a seal: `key` (mode 0600), `verifiers`, `checkpoint`, `rotations/`, `cosigned/` and `tile/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether anything was ever sealed here."""
        return (self.folder / "checkpoint").exists()

    def signer(self) -> Signer:
        """The key that signs; made at first use, where nothing was sealed yet.

        Raises:
            NoteError: there are checkpoints, and the key is missing or damaged.

        """
        path = self.folder / "key"
        if path.exists():
            return Signer.read(path.read_text())
        if self.exists:
            raise NoteError(f"{path} is missing: restore it from its backup; a new one would not be trusted")
        signer = Signer.make(f"resolution-ledger/{secrets.token_hex(8)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "verifiers").write_text(signer.verifier.text() + "\n")
        write_private(path, signer.text() + "\n")
        return signer

    def verifiers(self) -> list[Verifier]:
        """Keys that signed here, the first one first."""
        try:
            lines = (self.folder / "verifiers").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [Verifier.read(line) for line in lines if line.strip()]

    def trusted(self, given: Sequence[Verifier] = ()) -> list[Verifier]:
        """The keys to trust who trusts the given ones (none: the first): those they handed over to, too."""
        known = self.verifiers()
        found = list(given) or known[:1]
        for note in self.rotations():
            if note.signed_by(found):
                found += [verifier for verifier in note.signed_by(known) if verifier not in found]
        return found

    def rotations(self) -> list[Checkpoint]:
        """Checkpoints signed by a key and by the one that came after it, oldest first."""
        paths = sorted((self.folder / "rotations").glob("*"), key=lambda path: int(path.name))
        return [read_checkpoint(path.read_text()) for path in paths]

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, none before the first.

        Raises:
            NoteError: it cannot be read.

        """
        try:
            return read_checkpoint((self.folder / "checkpoint").read_text())
        except FileNotFoundError:
            return None

    def tiles(self, size: int) -> Tiles:
        """The tiles of a tree of this size."""
        return Tiles(self.folder, size)

    def cosigned(self) -> list[Checkpoint]:
        """Checkpoints that others have signed too, oldest first."""
        paths = sorted((self.folder / "cosigned").glob("*"), key=lambda path: int(path.name))
        return [read_checkpoint(path.read_text()) for path in paths]

    def keep_cosigned(self, note: Checkpoint) -> Checkpoint:
        """Keep the signatures of others on a checkpoint of ours.

        Raises:
            NoteError: it is not one of ours.

        """
        newest = self.checkpoint()
        if newest is None or note.size > newest.size or note.origin != newest.origin:
            raise NoteError("this is no checkpoint of this ledger")
        if not note.signed_by(self.trusted()) or self.tiles(note.size).root() != note.root:
            raise NoteError("this checkpoint was not signed here, or says something else than the tiles")
        path = self.folder / "cosigned" / str(note.size)
        if path.exists():
            note = read_checkpoint(path.read_text()).also(note.lines)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, note.note.encode())
        return note

    def rotate(self) -> tuple[Verifier, Verifier]:
        """Sign with a new key from now on; the newest checkpoint, signed by both, hands over. Old and new key.

        Raises:
            NoteError: nothing is sealed yet, or the old key is missing.

        """
        newest = self.checkpoint()
        if newest is None:
            raise NoteError("nothing is sealed yet: there is nothing to hand over")
        old = self.signer()
        new = Signer.make(old.name)
        both = make_checkpoint(newest.origin, newest.size, newest.root, (old, new))
        (self.folder / "rotations").mkdir(exist_ok=True)
        write_whole(self.folder / "rotations" / str(newest.size), both.note.encode())
        with (self.folder / "verifiers").open("a") as file:
            file.write(new.verifier.text() + "\n")
        write_whole(self.folder / "checkpoint", newest.also(both.lines).note.encode())
        write_private(self.folder / "key", new.text() + "\n")
        return old.verifier, new.verifier


def seal_folder(data_dir: Path) -> SealFolder:
    """The seal of a data directory."""
    return SealFolder(data_dir / "seal")


class Sealer:
    """Seals a log. One at a time may run for a folder; ``size`` is the position up to where it has sealed."""

    def __init__(self, folder: SealFolder) -> None:
        """Go on from the newest checkpoint.

        Raises:
            SealError: checkpoint, key and tiles do not fit each other.
            NoteError: the key or the checkpoint cannot be read.

        """
        self._folder = folder
        self._signer = folder.signer()
        newest = folder.checkpoint()
        self.signed = newest.size if newest else 0
        try:
            self._writer = TileWriter(folder.folder, self.signed)
        except MissingTileError as error:
            raise SealError(str(error), self.signed) from error
        if newest:
            if not newest.signed_by([self._signer.verifier]):
                raise SealError("the newest checkpoint is not signed with the key that is here", self.signed)
            if self._writer.root() != newest.root:
                raise SealError("the tiles at the end are not those of the newest checkpoint", self.signed)
        self.gaps = 0

    @property
    def size(self) -> int:
        """Up to which position leaves were taken in, signed or not."""
        return self._writer.size

    async def check(self, log: Log) -> None:
        """Check that the log still shows what was sealed last, and has not become shorter.

        Raises:
            SealError: it does not.

        """
        if self.signed == 0:
            return
        await check_positions(log, self._folder.tiles(self.signed), [self.signed])

    def take(self, batch: Sequence[Recorded]) -> None:
        """Seal events in their order; a position that has none becomes a leaf that says so.

        Raises:
            SealError: they do not continue what is sealed, or differ from tiles written before.

        """
        entries: list[bytes] = []
        expected = self.size + 1
        for recorded in batch:
            if recorded.position < expected:
                raise SealError("an event comes a second time", recorded.position)
            while expected < recorded.position:
                entries.append(gap_entry(expected))
                self.gaps += 1
                expected += 1
            entry = entry_of(*recorded)
            if len(entry) > MAX_ENTRY_BYTES:
                raise SealError("an event is too large to be sealed", recorded.position)
            entries.append(entry)
            expected += 1
        try:
            self._writer.append(entries)
        except DifferentTileError as error:
            raise SealError(str(error), self.size) from error

    def sign(self) -> Checkpoint | None:
        """Make what was taken durable, and sign it; nothing to do where nothing is new."""
        if self.size == self.signed:
            return None
        try:
            outdated = self._writer.flush()
        except DifferentTileError as error:
            raise SealError(str(error), self.size) from error
        signer = self._current_signer()
        note = make_checkpoint(signer.name, self.size, self._writer.root(), [signer])
        write_whole(self._folder.folder / "checkpoint", note.note.encode())
        self.signed = self.size
        for path in outdated:
            path.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        return note

    def _current_signer(self) -> Signer:
        """The key in its file: somebody may have rotated it meanwhile."""
        self._signer = self._folder.signer()
        return self._signer


async def check_positions(log: Log, tiles: Tiles, positions: Sequence[int]) -> None:
    """Check that the log shows at these positions what the tiles say.

    Raises:
        SealError: it does not.

    """
    for position in positions:
        sealed = tiles.entry(position - 1)
        found = await log.at(position)
        if found is None:
            if not read_entry(sealed).is_gap:
                raise SealError("a sealed event is gone", position)
        elif entry_of(*found) != sealed:
            raise SealError("a sealed event has changed", position)
