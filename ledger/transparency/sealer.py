"""The seal: a Merkle log over the stream in its order, as tiles and signed checkpoints in a folder.

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
"""The subject of a message that a restored log has in place of an event that was lost before it was sealed."""
_GAP, _EVENT = 0, 1
_HEAD_BYTES = 11
_NOTE_BYTES = 1 << 20
TAKEN_OVER = "taken-over"
"""A file in the folder from a takeover to the first checkpoint."""
_SEAL_FILES = ("key", "verifiers", "checkpoint", "tile")


class SealError(LedgerError):
    """The seal and the log differ, or the seal is damaged: nothing may be written until an operator has checked it."""

    def __init__(self, problem: str, position: int, advice: str = "") -> None:
        super().__init__(f"{problem} (position {position}): {advice or _INSPECT_ADVICE}")
        self.position = position


_INSPECT_ADVICE = (
    "the log is not what was sealed. Nothing is written until an operator has checked it: run `resolution-ledger audit "
    "verify`, then `resolution-ledger admin alarm`"
)
RESTORE_ADVICE = (
    "restore the folder `seal` from a backup. Only if it is lost: `resolution-ledger admin seal "
    "begin-anew --reason ...` begins another seal with another key, which auditors must be told"
)


class SealEntry(NamedTuple):
    """A decoded leaf: an event, or a gap for an event that was lost before it could be sealed (no subject)."""

    position: int
    subject: str
    data: bytes

    @property
    def is_gap(self) -> bool:
        """Return whether the position has no event."""
        return not self.subject


def encode_entry(position: int, subject: str, data: bytes) -> bytes:
    """Return a leaf: a byte 1, the position (64 bits), the subject's length (16 bits) and bytes, the event's bytes.

    Numbers are big-endian. The leaf of a gap is a byte 0 and the position.
    """
    if subject == GAP_SUBJECT:
        return encode_gap(position)
    encoded_subject = subject.encode()
    return b"\x01" + position.to_bytes(8) + len(encoded_subject).to_bytes(2) + encoded_subject + data


def encode_gap(position: int) -> bytes:
    """Return the leaf of a position without an event."""
    return b"\x00" + position.to_bytes(8)


def decode_entry(entry: bytes) -> SealEntry:
    """Return the content of a leaf.

    Raises:
        ValueError: it is not a leaf of this format.
    """
    if len(entry) < 9 or entry[0] not in (_GAP, _EVENT):  # noqa: PLR2004 - kind and position
        raise ValueError("not an entry of this ledger")
    position = int.from_bytes(entry[1:9])
    if entry[0] == _GAP:
        return SealEntry(position, "", b"")
    end = _HEAD_BYTES + int.from_bytes(entry[9:_HEAD_BYTES])
    return SealEntry(position, entry[_HEAD_BYTES:end].decode(), entry[end:])


class SealFolder:
    """The files of a seal: `key` (mode 0600), `verifiers`, `checkpoint`, `rotations/`, `cosigned/` and `tile/`."""

    def __init__(self, folder: Path, *, is_mirror: bool = False) -> None:
        """``is_mirror``: it holds files of another machine's seal (ledger/transparency/seal_mirror.py)."""
        self.folder, self.is_mirror = folder, is_mirror

    @property
    def is_begun(self) -> bool:
        """Return whether the folder holds a seal, or remains of one."""
        key, verifiers, *sealed = (os.path.lexists(self.folder / name) for name in _SEAL_FILES)
        return any(sealed) or (key and verifiers)

    @property
    def is_taken_over(self) -> bool:
        """Return whether the key was taken over from a copy, and nothing was signed here since."""
        return (self.folder / TAKEN_OVER).exists()

    def begin(self) -> Signer:
        """Create the signing key of a new seal.

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
        """Return the signing key.

        Raises:
            NoteError: the key is missing or damaged.
        """
        text = self._text("key")
        if text is None:
            raise NoteError(f"{self.folder / 'key'} is missing: restore it from its backup; a new one is not trusted")
        with self._named("key"):
            return Signer.read(text)

    def verifiers(self) -> list[Verifier]:
        """Return the keys that signed here, the first one first; none before a seal is begun.

        Raises:
            NoteError: their file is damaged, or missing although there is a seal.
        """
        text = self._text("verifiers") or ""
        if not text and self.is_begun:
            raise NoteError(
                f"{self.folder / 'verifiers'} is missing or empty: without it the seal's signatures cannot be "
                "checked. Restore it from a backup of the folder `seal`, or copy `verifiers` from the archive"
            )
        with self._named("verifiers"):
            found = [Verifier.read(line) for line in text.split("\n") if line]
        if "".join(verifier.text() + "\n" for verifier in found) != text:
            raise NoteError(f"{self.folder / 'verifiers'} is damaged: it must hold one verifier key a line")
        return found

    def trusted(self, trusted_keys: Sequence[Verifier] = ()) -> list[Verifier]:
        """Return these keys (default: the first key), and those that they handed over to."""
        known = self.verifiers()
        found = list(trusted_keys) or known[:1]
        for note in self.rotations():
            if note.signed_by(found):
                found += [verifier for verifier in note.signed_by(known) if verifier not in found]
        return found

    def rotations(self) -> list[Checkpoint]:
        """Return checkpoints signed by a key and by its successor, oldest first."""
        return self._notes("rotations")

    def checkpoint(self) -> Checkpoint | None:
        """Return the newest checkpoint, None before the first.

        Raises:
            NoteError: it cannot be read.
        """
        text = self._text("checkpoint")
        with self._named("checkpoint"):
            return None if text is None else read_checkpoint(text)

    def cosigned(self) -> list[Checkpoint]:
        """Return checkpoints with signatures of witnesses, oldest first."""
        return self._notes("cosigned")

    def _text(self, name: str) -> str | None:
        """Return a small file's text; None if it is missing."""
        with self._named(name):
            try:
                return read_bounded(self.folder / name, _NOTE_BYTES).decode()
            except FileNotFoundError:
                return None

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Name the damaged file and the remedy in errors."""
        try:
            yield
        except ValueError as error:
            message = f"{self.folder / name} is damaged: {error}. Restore it from a backup of the folder `seal`"
            raise NoteError(message) from error

    def _names(self, name: str) -> list[str]:
        """Return the names of the files in a folder of checkpoints."""
        return [path.name for path in (self.folder / name).glob("*") if not path.name.startswith(".")]

    def _notes(self, name: str) -> list[Checkpoint]:
        """Return the checkpoints of a folder, each in a file named by its size."""
        names = self._names(name)
        try:
            found = [read_checkpoint(self._text(f"{name}/{size}") or "") for size in sorted(map(int, names))]
        except ValueError as error:
            raise NoteError(f"{self.folder / name} is damaged: {error}") from error
        if sorted(str(note.size) for note in found) != sorted(names):
            raise NoteError(f"{self.folder / name} is damaged: each file there must be named by its checkpoint's size")
        return found

    def small_files(self) -> dict[str, bytes]:
        """Return the files that cannot be derived from the log, by their path in the folder."""
        paths = [self.folder / name for name in ("key", "verifiers")]
        paths += sorted(path for path in (self.folder / "rotations").glob("*") if not path.name.startswith("."))
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}

    def public_files(self, bytes_at_most: int) -> dict[str, str]:
        """Return the small files that anyone may have, by their path in the folder; the newest cosigned checkpoints."""
        found = {name: text for name in ("checkpoint", "verifiers") if (text := self._text(name)) is not None}
        found |= {f"rotations/{note.size}": note.note for note in self.rotations()}
        room = bytes_at_most - sum(map(len, found.values()))
        for note in reversed(self.cosigned()):
            room -= len(note.note)
            if room < 0:
                break
            found[f"cosigned/{note.size}"] = note.note
        return found

    def tiles(self, size: int) -> Tiles:
        """Return the tiles of a tree of this size."""
        return Tiles(self.folder, size)

    def add_cosignatures(self, note: Checkpoint) -> Checkpoint:
        """Store the signatures of witnesses on a checkpoint of this seal.

        Raises:
            NoteError: it is not a checkpoint of this seal.
        """
        newest = self.checkpoint()
        if newest is None or note.size > newest.size or note.origin != newest.origin:
            raise NoteError("this is not a checkpoint of this ledger")
        if not note.signed_by(self.trusted()) or self.tiles(note.size).root() != note.root:
            raise NoteError("this checkpoint was not signed here, or differs from the tiles")
        name = f"cosigned/{note.size}"
        if (stored := self._text(name)) is not None:
            note = read_checkpoint(stored).with_signatures(note.lines)
        write_atomically(self.folder / name, note.note.encode())
        return note

    def rotate(self) -> tuple[Verifier, Verifier]:
        """Sign with a new key from now on; return old and new key. The newest checkpoint, signed by both, hands over.

        Raises:
            NoteError: nothing is sealed yet, or the old key is missing.
        """
        newest = self.checkpoint()
        if newest is None:
            raise NoteError("nothing is sealed yet: there is nothing to hand over")
        old_key = self.signer()
        new_key = Signer.make(old_key.name)
        cosigned = make_checkpoint(newest.origin, newest.size, newest.root, (old_key, new_key))
        write_atomically(self.folder / "rotations" / str(newest.size), cosigned.note.encode())
        verifiers = [*self.verifiers(), new_key.verifier]
        write_atomically(self.folder / "verifiers", "".join(verifier.text() + "\n" for verifier in verifiers).encode())
        write_atomically(self.folder / "checkpoint", newest.with_signatures(cosigned.lines).note.encode())
        write_private(self.folder / "key", new_key.text() + "\n")
        return old_key.verifier, new_key.verifier


def seal_folder(data_dir: Path) -> SealFolder:
    """Return the seal of a data directory."""
    return SealFolder(data_dir / "seal")


class Sealer:
    """Seals a log. Only one may run for a folder; ``size`` is the last position that was added."""

    def __init__(self, folder: SealFolder, recorded: Checkpoint | None = None) -> None:
        """Continue from the newest checkpoint. The root of ``recorded``, the server's checkpoint, must be reached.

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
                raise SealError("the newest checkpoint is not signed with the key in the folder", self.signed)
            if self._writer.root() != newest.root:
                raise SealError("the last tiles are not those of the newest checkpoint", self.signed)
        self.gaps = 0
        self._recorded = recorded
        if recorded is not None and not recorded.signed_by(folder.trusted()):
            raise SealError("the server's recorded checkpoint is signed with none of the keys here", recorded.size)
        if recorded is not None and recorded.size <= self.signed:
            self._check_recorded(recorded, folder.tiles(self.signed).root_at)

    def _check_recorded(self, recorded: Checkpoint, root_at: Callable[[int], bytes]) -> None:
        try:
            root = root_at(recorded.size)
        except MissingTileError as error:
            raise SealError(str(error), recorded.size) from error
        if root != recorded.root:
            raise SealError("the seal here differs from the server's recorded checkpoint", recorded.size)
        self._recorded = None

    @property
    def size(self) -> int:
        """The last position that was added, signed or not."""
        return self._writer.size

    async def check(self, log: Log) -> None:
        """Check that the log still shows the last sealed event, and has not become shorter.

        Raises:
            SealError: it does not.
        """
        if self._recorded is not None and await log.last_position() < self._recorded.size:
            raise SealError("the log is shorter than the seal", self._recorded.size)
        if self.signed == 0:
            return
        await check_positions(log, self._folder.tiles(self.signed), [self.signed])

    def take(self, batch: Sequence[Recorded]) -> None:
        """Seal events in order; a position without an event becomes a gap.

        Raises:
            SealError: they do not continue the seal, or differ from tiles written before.
        """
        entries: list[bytes] = []
        expected = self.size + 1
        for event in batch:
            if event.position < expected:
                raise SealError("an event is read a second time", event.position)
            while expected < event.position:
                entries.append(encode_gap(expected))
                self.gaps += 1
                expected += 1
            entry = encode_entry(*event)
            if len(entry) > MAX_ENTRY_BYTES:
                raise SealError("an event is too large to be sealed", event.position)
            entries.append(entry)
            expected += 1
        if self._recorded is not None and (remaining := self._recorded.size - self.size) <= len(entries):
            self._append(entries[:remaining])
            self._check_recorded(self._recorded, lambda _size: self._writer.root())
            entries = entries[remaining:]
        self._append(entries)

    def _append(self, entries: Sequence[bytes]) -> None:
        try:
            self._writer.append(entries)
        except DifferentTileError as error:
            raise SealError(str(error), self.size) from error

    def sign(self) -> Checkpoint | None:
        """Make all added leaves durable, and sign them; return None if there is none."""
        if self.size == self.signed or self._recorded is not None:
            return None
        try:
            outdated = self._writer.flush()
        except DifferentTileError as error:
            raise SealError(str(error), self.size) from error
        signer = self._current_signer()
        note = make_checkpoint(signer.name, self.size, self._writer.root(), [signer])
        write_atomically(self._folder.folder / "checkpoint", note.note.encode())
        (self._folder.folder / TAKEN_OVER).unlink(missing_ok=True)
        self.signed = self.size
        for path in outdated:
            path.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        return note

    def _current_signer(self) -> Signer:
        """Return the key in its file, since another process may have rotated it."""
        self._signer = self._folder.signer()
        return self._signer


async def check_positions(log: Log, tiles: Tiles, positions: Sequence[int]) -> None:
    """Check that the log has the sealed events at these positions.

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
