"""The archive: the log as Parquet files by day, each of a sealed range, from which it can be restored.

    archive/checkpoint, archive/verifiers           copies made with the newest file
    archive/manifest.jsonl                          one line for each file, in order
    archive/day=2026-11-22/1-50000.parquet          positions 1 to 50,000, all recorded on that day

A file's columns are those of `ledger.archive.parquet`. A position without an event has a row with the subject
`ledger.gap`.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import msgspec

from ledger.archive.verification import CHUNK, event_leaf_hash
from ledger.errors import LedgerError
from ledger.files import read_bounded, write_atomically
from ledger.store.log import Recorded
from ledger.transparency.sealer import GAP_SUBJECT, SealError
from ledger.transparency.signed_notes import Checkpoint, NoteError, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ledger.transparency.tiles import Tiles

FILE_EVENTS = CHUNK
"""No file crosses a multiple of this, so that verification in chunks reads each file once."""
_GROWS_BELOW, _GROWS_BELOW_BYTES = 20_000, 2 << 20
"""The last file of a day is replaced by a longer one while it has fewer events and, compressed, fewer bytes."""
_CHECKPOINT_BYTES = 1 << 20
_MANIFEST_BYTES = 256 << 20


class ArchiveError(LedgerError):
    """An archive's file is missing, damaged, or differs from the seal."""

    def __init__(self, problem: str, position: int, file: str = "") -> None:
        super().__init__(f"{problem} (position {position}{', ' + file if file else ''})")
        self.problem = problem
        self.position = position
        self.file = file


class ArchiveFile(msgspec.Struct, frozen=True):
    """One file: its path in the archive, its first and last position, and the SHA-256 of its bytes (hex)."""

    file: Annotated[str, msgspec.Meta(pattern=r"^day=\d{4}-\d\d-\d\d/\d+-\d+\.parquet$")]
    first: int
    last: int
    sha256: str


class Archive:
    """The files of an archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def parts(self) -> list[ArchiveFile]:
        """Return the files in the manifest, in order."""
        try:
            lines = read_bounded(self.folder / "manifest.jsonl", _MANIFEST_BYTES).splitlines()
        except FileNotFoundError:
            return []
        return [msgspec.json.decode(line, type=ArchiveFile) for line in lines if line]

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint that was written with the newest file; None in an empty archive.

        Raises:
            NoteError: it cannot be read.
        """
        path = self.folder / "checkpoint"
        try:
            return read_checkpoint(read_bounded(path, _CHECKPOINT_BYTES).decode())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise NoteError(f"{path} is damaged: {error}") from error

    @property
    def last_position(self) -> int:
        """The last archived position."""
        parts = self.parts()
        return parts[-1].last if parts else 0

    def add(self, events: Sequence[Recorded], checkpoint: str, verifiers: str, tiles: Tiles | None = None) -> None:
        """Write events that follow the last position, durably: they must be sealed under ``checkpoint``.

        A small last file of the same day is replaced by one with these events added.

        Raises:
            SealError: an event differs from the sealed one at its position.
        """
        if tiles is not None:
            _check(events, tiles)
        days = [text[:10] for text in _recorded_times(events)]
        begins = [
            place
            for place, event in enumerate(events)
            if place == 0 or days[place] != days[place - 1] or event.position % FILE_EVENTS == 1
        ]
        for begin, end in pairwise([*begins, len(events)]):
            self._add(days[begin], events[begin:end])
        write_atomically(self.folder / "checkpoint", checkpoint.encode())
        write_atomically(self.folder / "verifiers", verifiers.encode())

    def _add(self, day: str, events: Sequence[Recorded]) -> None:
        from ledger.archive.parquet import parquet_bytes

        parts = self.parts()
        last_file = parts[-1] if parts else None
        first, last = events[0].position, events[-1].position
        grows = (
            last_file is not None
            and last_file.file.startswith(f"day={day}/")
            and last_file.last - last_file.first < _GROWS_BELOW
            and self.path_of(last_file).stat().st_size < _GROWS_BELOW_BYTES
            and first % FILE_EVENTS != 1
        )
        if last_file is not None and grows:
            data = parquet_bytes(events, self.path_of(last_file))
            first = last_file.first
            parts.pop()
        else:
            data = parquet_bytes(events)
        name = f"day={day}/{first}-{last}.parquet"
        write_atomically(self.folder / name, data)
        parts.append(ArchiveFile(name, first, last, hashlib.sha256(data).hexdigest()))
        write_atomically(self.folder / "manifest.jsonl", b"".join(msgspec.json.encode(part) + b"\n" for part in parts))
        if last_file is not None and grows:
            (self.folder / last_file.file).unlink(missing_ok=True)

    def file_errors(self, *, bytes_at_most: float = math.inf) -> Iterator[ArchiveError]:
        """Yield errors of the files: missing, with other bytes than were written, or not contiguous."""
        expected = 1
        hashed = self._newest(bytes_at_most)
        for part in self.parts():
            if part.first != expected:
                yield ArchiveError("the archive's files are not contiguous", expected, part.file)
            expected = part.last + 1
            try:
                with self.path_of(part).open("rb") as file:
                    changed = part in hashed and hashlib.file_digest(file, "sha256").hexdigest() != part.sha256
            except ArchiveError as error:
                yield error
            except OSError as error:
                yield ArchiveError(f"the archive's file cannot be read: {error.strerror}", part.first, part.file)
            else:
                if changed:
                    yield ArchiveError("the archive's file was changed", part.first, part.file)

    def path_of(self, part: ArchiveFile) -> Path:
        """Return the path of a file.

        Raises:
            ArchiveError: a pipe or a device is there, which would be read for ever.
        """
        path = self.folder / part.file
        if path.exists() and not path.is_file():
            raise ArchiveError("the archive's file is no regular file", part.first, part.file)
        return path

    def _newest(self, bytes_at_most: float) -> set[ArchiveFile]:
        """Return the newest files, as many as make up so many bytes; at least one."""
        found: set[ArchiveFile] = set()
        for part in reversed(self.parts()):
            if bytes_at_most <= 0:
                break
            found.add(part)
            with suppress(OSError):
                bytes_at_most -= (self.folder / part.file).stat().st_size
        return found

    def batches(self, first: int = 1, last: int | None = None) -> Iterator[list[Recorded]]:
        """Yield events from one position to another, oldest first.

        Raises:
            ArchiveError: a file cannot be read.
        """
        from ledger.archive.parquet import read_batches

        for part in self.parts():
            if part.last < first or (last is not None and part.first > last):
                continue
            try:
                for batch in read_batches(self.path_of(part)):
                    found = [
                        event for event in batch if event.position >= first and (last is None or event.position <= last)
                    ]
                    if found:
                        yield found
            except OSError as error:
                raise ArchiveError(f"the archive's file cannot be read: {error}", part.first, part.file) from error


def _check(events: Sequence[Recorded], tiles: Tiles) -> None:
    """Raise SealError if one of these consecutive events differs from the sealed one."""
    first, last = events[0].position, events[-1].position
    if last - first + 1 != len(events):
        raise SealError("an event is missing", first)
    for event, sealed in zip(events, tiles.leaves(first, last), strict=True):
        if event_leaf_hash(event) != sealed:
            raise SealError("an event is not what was sealed", event.position)


class _Times(msgspec.Struct):
    recordedtime: str = "1970-01-01"


_times_decoder = msgspec.json.Decoder(_Times)


def _recorded_times(events: Sequence[Recorded]) -> list[str]:
    decode = _times_decoder.decode
    return [decode(event.data).recordedtime for event in events]


def gap_marker(position: int, recorded: str) -> Recorded:
    """Return the event that replaces an event that was lost before it could be sealed."""
    document = {
        "specversion": "1.0",
        "id": f"gap-{position}",
        "source": "resolution-ledger",
        "type": "resolution.gap.v1",
        "time": recorded,
        "data": {},
        "recordedtime": recorded,
    }
    return Recorded(position, GAP_SUBJECT, msgspec.json.encode(document))
