"""The archive: the log as Parquet files by day, each of a sealed range, from which it can be restored.

    archive/checkpoint, archive/verifiers           as they were when the newest file was written
    archive/manifest.jsonl                          a line a file, in order
    archive/day=2026-11-22/1-50000.parquet          positions 1 to 50,000, all recorded on that day

Columns: `position`, `subject`, `time`, `recorded` (UTC, microseconds), `type`, `source`, `id`, `event` (the stored
bytes). A position that has no event is there too, with the subject `ledger.gap`.
"""

from __future__ import annotations

import hashlib
import os
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ledger.cloudevents import Stored, parse_time, stored_decoder
from ledger.errors import LedgerError
from ledger.log import Recorded
from ledger.merkle import HASH_BYTES, root_of
from ledger.seal import GAP_SUBJECT
from ledger.tiles import WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ledger.tiles import Tiles

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("subject", pa.dictionary(pa.int32(), pa.string())),
        ("time", pa.timestamp("us", tz="UTC")),
        ("recorded", pa.timestamp("us", tz="UTC")),
        ("type", pa.dictionary(pa.int32(), pa.string())),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("id", pa.string()),
        ("event", pa.binary()),
    ]
)
FILE_EVENTS = 100_000
_GROWS_BELOW = 20_000
_BATCH_ROWS = 16_384
CHUNK = WIDTH * WIDTH
"""Leaves that are verified together: a complete subtree."""


class ArchiveError(LedgerError):
    """An archive's file is missing, damaged, or not what was sealed."""

    def __init__(self, what: str, position: int, file: str = "") -> None:
        super().__init__(f"{what} (position {position}{', ' + file if file else ''})")
        self.position = position
        self.file = file


class Part(msgspec.Struct, frozen=True):
    """One file: its path in the archive, its first and last position, and the SHA-256 of its bytes (hex)."""

    file: str
    first: int
    last: int
    sha256: str


class Archive:
    """The files of an archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def parts(self) -> list[Part]:
        """The files that there should be, in order."""
        try:
            lines = (self.folder / "manifest.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [msgspec.json.decode(line, type=Part) for line in lines if line]

    @property
    def last_position(self) -> int:
        """Up to where it has the log."""
        parts = self.parts()
        return parts[-1].last if parts else 0

    def add(self, events: Sequence[Recorded], checkpoint: str, verifiers: str) -> None:
        """Write events that follow the last position, durably: they must be sealed under ``checkpoint``.

        A small last file of the same day is written anew with them.
        """
        for day, group in groupby(events, key=_day_of):
            of_day = list(group)
            for at in range(0, len(of_day), FILE_EVENTS):
                self._add(day, of_day[at : at + FILE_EVENTS])
        _write(self.folder / "checkpoint", checkpoint.encode())
        _write(self.folder / "verifiers", verifiers.encode())

    def _add(self, day: str, events: list[Recorded]) -> None:
        parts = self.parts()
        old = parts[-1] if parts else None
        table = as_table(events)
        first, last = events[0].position, events[-1].position
        grows = old is not None and old.file.startswith(f"day={day}/") and old.last - old.first < _GROWS_BELOW
        if old is not None and grows:
            table = pa.concat_tables([pq.read_table(self.folder / old.file, schema=SCHEMA), table])
            first = old.first
            parts.pop()
        name = f"day={day}/{first}-{last}.parquet"
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        _write(self.folder / name, data)
        parts.append(Part(name, first, last, hashlib.sha256(data).hexdigest()))
        _write(self.folder / "manifest.jsonl", b"".join(msgspec.json.encode(part) + b"\n" for part in parts))
        if old is not None and grows:
            (self.folder / old.file).unlink(missing_ok=True)

    def check_files(self) -> Iterator[ArchiveError]:
        """What is wrong with the files: missing, other bytes than when they were written, ranges that do not join."""
        expected = 1
        for part in self.parts():
            if part.first != expected:
                yield ArchiveError("the archive's files do not join", expected, part.file)
            expected = part.last + 1
            try:
                with (self.folder / part.file).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                yield ArchiveError(f"the archive's file cannot be read: {error.strerror}", part.first, part.file)
            else:
                if found != part.sha256:
                    yield ArchiveError("the archive's file is not what was written", part.first, part.file)

    def batches(self, first: int = 1, last: int | None = None) -> Iterator[list[Recorded]]:
        """Events from one position to another, oldest first.

        Raises:
            ArchiveError: a file cannot be read.

        """
        for part in self.parts():
            if part.last < first or (last is not None and part.first > last):
                continue
            try:
                with pq.ParquetFile(self.folder / part.file) as file:
                    for batch in file.iter_batches(_BATCH_ROWS, columns=["position", "subject", "event"]):
                        found = [
                            Recorded(*row)
                            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
                            if row[0] >= first and (last is None or row[0] <= last)
                        ]
                        if found:
                            yield found
            except (OSError, pa.ArrowException) as error:
                raise ArchiveError(f"the archive's file cannot be read: {error}", part.first, part.file) from error


def _day_of(event: Recorded) -> str:
    return stored_decoder.decode(event.data).recordedtime[:10]


def as_table(events: Sequence[Recorded]) -> pa.Table:
    """Events as rows; what is no CloudEvent keeps its bytes alone."""
    stored = [_stored(event) for event in events]
    columns: list[Any] = [
        [event.position for event in events],
        [event.subject for event in events],
        [parse_time(one.time) if one else None for one in stored],
        [parse_time(one.recordedtime) if one else None for one in stored],
        [one.type if one else None for one in stored],
        [one.source if one else None for one in stored],
        [one.id if one else None for one in stored],
        [event.data for event in events],
    ]
    arrays = [
        pa.array(column, field.type.value_type).dictionary_encode() if pa.types.is_dictionary(field.type)
        else pa.array(column, field.type)
        for column, field in zip(columns, SCHEMA, strict=True)
    ]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _stored(event: Recorded) -> Stored | None:
    try:
        return stored_decoder.decode(event.data)
    except msgspec.MsgspecError:
        return None


def gap_marker(position: int, recorded: str) -> Recorded:
    """What stands in an archive, and in a restored log, for an event that was lost before it could be sealed."""
    document = {
        "specversion": "1.0", "id": f"gap-{position}", "source": "resolution-ledger", "type": "resolution.gap.v1",
        "time": recorded, "data": {}, "recordedtime": recorded,
    }  # fmt: skip
    return Recorded(position, GAP_SUBJECT, msgspec.json.encode(document))


class Range(NamedTuple):
    """What came of verifying some positions of an archive: their root, and those that are not what was sealed."""

    root: bytes
    wrong: list[int]


def verify_range(archive: Archive, tiles: Tiles, first: int, last: int) -> Range:
    """Hash the leaves of positions ``first`` to ``last`` and compare them with the tiles, whole tiles at a time.

    ``first`` is the beginning of a chunk of ``CHUNK`` leaves; ``last`` its end, or the end of the tree.

    Raises:
        ArchiveError: a file cannot be read, or positions are missing.

    """
    leaves = b"".join(_leaves(archive, first, last))
    if len(leaves) != (last - first + 1) * HASH_BYTES:
        raise ArchiveError("the archive has not every position", first + len(leaves) // HASH_BYTES)
    wrong: list[int] = []
    roots: list[bytes] = []
    for at in range(0, last - first + 1, WIDTH):
        found = leaves[at * HASH_BYTES : (at + WIDTH) * HASH_BYTES]
        sealed = tiles.hashes(0, (first - 1 + at) // WIDTH)[: len(found)]
        hashes = [found[one : one + HASH_BYTES] for one in range(0, len(found), HASH_BYTES)]
        if found != sealed:
            wrong += [
                first + at + place for place, one in enumerate(hashes)
                if one != sealed[place * HASH_BYTES : (place + 1) * HASH_BYTES]
            ]  # fmt: skip
        roots.append(root_of(hashes))
    return Range(root_of(roots), wrong)


def _leaves(archive: Archive, first: int, last: int) -> Iterator[bytes]:
    """The leaves' hashes, those of each batch of rows one behind the other."""
    sha256 = hashlib.sha256
    for part in archive.parts():
        if part.last < first or part.first > last:
            continue
        try:
            table = pq.read_table(archive.folder / part.file, columns=["position", "subject", "event"],
                                  filters=[("position", ">=", first), ("position", "<=", last)])  # fmt: skip
        except (OSError, pa.ArrowException) as error:
            raise ArchiveError(f"the archive's file cannot be read: {error}", part.first, part.file) from error
        for batch in table.to_batches():
            positions = batch.column("position").to_numpy()
            heads = np.empty((len(positions), 10), np.uint8)  # the leaf's prefix, the entry's kind, its position
            heads[:, 0], heads[:, 1] = 0, 1
            heads[:, 2:] = positions.astype(">u8").view(np.uint8).reshape(-1, 8)
            raw = heads.tobytes()
            subjects = [name.encode() for name in batch.column("subject").dictionary.to_pylist()]
            middles = [len(name).to_bytes(2) + name for name in subjects]
            gap = subjects.index(GAP_SUBJECT.encode()) if GAP_SUBJECT.encode() in subjects else -1
            which = batch.column("subject").indices.to_pylist()
            yield b"".join([
                sha256(raw[at : at + 10] + middles[subject] + event).digest()
                if subject != gap else sha256(b"\x00\x00" + raw[at + 2 : at + 10]).digest()
                for at, subject, event in zip(
                    range(0, len(raw), 10), which, batch.column("event").to_pylist(), strict=True
                )
            ])  # fmt: skip


def _write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
