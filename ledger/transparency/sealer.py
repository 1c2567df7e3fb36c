"""The seal: a Merkle log over the stream in its order, tiles and signed checkpoints in a folder.

See docs/understand/auditing.md.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ledger.errors import LedgerError
from ledger.files import read_bounded, write_atomically, write_private
from ledger.transparency.signed_notes import Checkpoint, NoteError, Signer, Verifier, make_checkpoint, read_checkpoint
from ledger.transparency.tiles import MAX_ENTRY_BYTES, DifferentTileError, MissingTileError, Tiles, TileWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ledger.store.log import Log, Recorded

GAP_SUBJECT = "ledger.gap"
"""Where a restored log has a message instead of an event that was lost before it was sealed."""
_GAP, _EVENT = 0, 1
_HEAD_BYTES = 11
_NOTE_BYTES = 1 << 20
_SEAL_FILES = ("key", "verifiers", "checkpoint", "tile")


class SealError(LedgerError):
    """The seal and the log disagree, or the seal itself is damaged: nothing may be written until somebody looked."""

    def __init__(self, what: str, position: int, advice: str = "") -> None:
        super().__init__(f"{what} (position {position}): {advice or _INSPECT_ADVICE}")
        self.position = position


_INSPECT_ADVICE = (
    "the log is not what was sealed. Nothing is written until somebody has looked: run `resolution-ledger audit "
    "verify`, then `resolution-ledger admin alarm`"
)
RESTORE_ADVICE = (
    "bring the folder `seal` back from a backup. Only where it is lost for good: `resolution-ledger admin seal "
    "begin-anew --reason ...` begins another one with another key, which auditors have to be told"
)


class SealEntry(NamedTuple):
    """A leaf read back: an event, or the place of one that was lost before it could be sealed (no subject)."""

    position: int
    subject: str
    data: bytes

    @property
    def is_gap(self) -> bool:
        """Whether there was no event to seal."""
        return not self.subject


def encode_entry(position: int, subject: str, data: bytes) -> bytes:
    """A leaf: a byte 1, the position (64 bits), the subject's length (16 bits) and bytes, the event's bytes.

    Numbers are big-endian. For a lost event: a byte 0 and the position.
    """
    if subject == GAP_SUBJECT:
        return encode_gap(position)
    name = subject.encode()
    return b"\x01" + position.to_bytes(8) + len(name).to_bytes(2) + name + data


def encode_gap(position: int) -> bytes:
    """The leaf of a position at which there was no event."""
    return b"\x00" + position.to_bytes(8)


def decode_entry(entry: bytes) -> SealEntry:
    """What a leaf says.

    Raises:
        ValueError: it is no leaf of ours.

    """
    if len(entry) < 9 or entry[0] not in (_GAP, _EVENT):  # noqa: PLR2004 - kind and position
        raise ValueError("no entry of this ledger")
    position = int.from_bytes(entry[1:9])
    if entry[0] == _GAP:
        return SealEntry(position, "", b"")
    end = _HEAD_BYTES + int.from_bytes(entry[9:_HEAD_BYTES])
    return SealEntry(position, entry[_HEAD_BYTES:end].decode(), entry[end:])


class SealFolder:
    """The files of a seal: `key` (mode 0600), `verifiers`, `checkpoint`, `rotations/`, `cosigned/` and `tile/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def is_begun(self) -> bool:
        """Return whether a seal is here, or remains of one."""
        key, verifiers, *sealed = (os.path.lexists(self.folder / name) for name in _SEAL_FILES)
        return any(sealed) or (key and verifiers)

    def begin(self) -> Signer:
        """Make the signing key of a seal that is not there yet.

        Raises:
            NoteError: there is a seal already.

        """
        if self.is_begun:
            raise NoteError(f"{self.folder} holds a seal already")
        signer = Signer.make(f"resolution-ledger/{secrets.token_hex(8)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.folder / "key", signer.text() + "\n")
        write_atomically(self.folder / "verifiers", (signer.verifier.text() + "\n").encode())
        return signer

    def signer(self) -> Signer:
        """The key that signs.

        Raises:
            NoteError: the key is missing or damaged.

        """
        text = self._text("key")
        if text is None:
            raise NoteError(f"{self.folder / 'key'} is missing: restore it from its backup; a new one is not trusted")
        with self._named("key"):
            return Signer.read(text)

    def verifiers(self) -> list[Verifier]:
        """Keys that signed here, the first one first; none before a seal is begun.

        Raises:
            NoteError: their file is damaged, or missing beside what they signed.

        """
        text = self._text("verifiers") or ""
        if not text and self.is_begun:
            raise NoteError(
                f"{self.folder / 'verifiers'} is missing or empty: without it the seal's signatures cannot be "
                "checked. Bring it back from a backup of the folder `seal`, or copy `verifiers` from the archive"
            )
        with self._named("verifiers"):
            found = [Verifier.read(line) for line in text.split("\n") if line]
        if "".join(verifier.text() + "\n" for verifier in found) != text:
            raise NoteError(f"{self.folder / 'verifiers'} is damaged: it holds a verifier key a line")
        return found

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
        return self._notes("rotations")

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, none before the first.

        Raises:
            NoteError: it cannot be read.

        """
        text = self._text("checkpoint")
        with self._named("checkpoint"):
            return None if text is None else read_checkpoint(text)

    def cosigned(self) -> list[Checkpoint]:
        """Checkpoints that others have signed too, oldest first."""
        return self._notes("cosigned")

    def _text(self, name: str) -> str | None:
        """A small file's text; none where it is missing.

        Raises:
            NoteError: it cannot be read, whatever stands there instead.

        """
        with self._named(name):
            try:
                return read_bounded(self.folder / name, _NOTE_BYTES).decode()
            except FileNotFoundError:
                return None

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Say which file is damaged, and what to do."""
        try:
            yield
        except ValueError as error:
            message = f"{self.folder / name} is damaged: {error}. Bring it back from a backup of the folder `seal`"
            raise NoteError(message) from error

    def _notes(self, name: str) -> list[Checkpoint]:
        """The checkpoints of a folder, each in a file that is named by its size."""
        names = [path.name for path in (self.folder / name).glob("*") if not path.name.startswith(".")]
        try:
            found = [read_checkpoint(self._text(f"{name}/{size}") or "") for size in sorted(map(int, names))]
        except ValueError as error:
            message = f"{self.folder / name} is damaged: {error}"
            raise NoteError(message) from error
        if sorted(str(note.size) for note in found) != sorted(names):
            raise NoteError(f"{self.folder / name} is damaged: a checkpoint's file there is named by its size")
        return found

    def tiles(self, size: int) -> Tiles:
        """The tiles of a tree of this size."""
        return Tiles(self.folder, size)

    def add_cosignatures(self, note: Checkpoint) -> Checkpoint:
        """Keep the signatures of others on a checkpoint of ours.

        Raises:
            NoteError: it is not one of ours.

        """
        newest = self.checkpoint()
        if newest is None or note.size > newest.size or note.origin != newest.origin:
            raise NoteError("this is no checkpoint of this ledger")
        if not note.signed_by(self.trusted()) or self.tiles(note.size).root() != note.root:
            raise NoteError("this checkpoint was not signed here, or says something else than the tiles")
        name = f"cosigned/{note.size}"
        if (before := self._text(name)) is not None:
            note = read_checkpoint(before).with_signatures(note.lines)
        write_atomically(self.folder / name, note.note.encode())
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
        write_atomically(self.folder / "rotations" / str(newest.size), both.note.encode())
        verifiers = [*self.verifiers(), new.verifier]
        write_atomically(self.folder / "verifiers", "".join(one.text() + "\n" for one in verifiers).encode())
        write_atomically(self.folder / "checkpoint", newest.with_signatures(both.lines).note.encode())
        write_private(self.folder / "key", new.text() + "\n")
        return old.verifier, new.verifier


def seal_folder(data_dir: Path) -> SealFolder:
    """The seal of a data directory."""
    return SealFolder(data_dir / "seal")


class Sealer:
    """Seals a log. One at a time may run for a folder; ``size`` is the position up to where it has sealed."""

    def __init__(self, folder: SealFolder, kept: Checkpoint | None = None) -> None:
        """Go on from the newest checkpoint. ``kept`` is one that the server has kept: its root has to be met.

        Raises:
            SealError: checkpoints, key and tiles do not fit each other.
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
        self._kept = kept
        if kept is not None and not kept.signed_by(folder.trusted()):
            raise SealError("the checkpoint that the server has kept is signed with none of the keys here", kept.size)
        if kept is not None and kept.size <= self.signed:
            self._check_kept(kept, folder.tiles(self.signed).root_at)

    def _check_kept(self, kept: Checkpoint, root_at: Callable[[int], bytes]) -> None:
        try:
            root = root_at(kept.size)
        except MissingTileError as error:
            raise SealError(str(error), kept.size) from error
        if root != kept.root:
            raise SealError("what is sealed here is not what the checkpoint covers that the server has kept", kept.size)
        self._kept = None

    @property
    def size(self) -> int:
        """Up to which position leaves were taken in, signed or not."""
        return self._writer.size

    async def check(self, log: Log) -> None:
        """Check that the log still shows what was sealed last, and has not become shorter.

        Raises:
            SealError: it does not.

        """
        if self._kept is not None and await log.last_position() < self._kept.size:
            raise SealError("the log ends before what was sealed", self._kept.size)
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
                entries.append(encode_gap(expected))
                self.gaps += 1
                expected += 1
            entry = encode_entry(*recorded)
            if len(entry) > MAX_ENTRY_BYTES:
                raise SealError("an event is too large to be sealed", recorded.position)
            entries.append(entry)
            expected += 1
        if self._kept is not None and (more := self._kept.size - self.size) <= len(entries):
            self._append(entries[:more])
            self._check_kept(self._kept, lambda _size: self._writer.root())
            entries = entries[more:]
        self._append(entries)

    def _append(self, entries: Sequence[bytes]) -> None:
        try:
            self._writer.append(entries)
        except DifferentTileError as error:
            raise SealError(str(error), self.size) from error

    def sign(self) -> Checkpoint | None:
        """Make what was taken durable, and sign it; nothing to do where nothing is new."""
        if self.size == self.signed or self._kept is not None:
            return None
        try:
            outdated = self._writer.flush()
        except DifferentTileError as error:
            raise SealError(str(error), self.size) from error
        signer = self._current_signer()
        note = make_checkpoint(signer.name, self.size, self._writer.root(), [signer])
        write_atomically(self._folder.folder / "checkpoint", note.note.encode())
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
            if sealed != encode_gap(position):
                raise SealError("a sealed event is gone", position)
        elif encode_entry(*found) != sealed:
            raise SealError("a sealed event has changed", position)
