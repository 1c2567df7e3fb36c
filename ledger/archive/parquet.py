"""Parquet files of events. Requires pyarrow, which the package's extra `archive` installs.

Columns: `position`, `subject`, `time`, `recorded` (UTC, microseconds), `type`, `source`, `id`, `event` (the stored
bytes).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

import msgspec

from ledger.errors import MissingExtraError
from ledger.store.cloudevents import StoredFields, parse_time, stored_decoder
from ledger.store.log import Recorded
from ledger.transparency.sealer import GAP_SUBJECT

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ModuleNotFoundError as error:
    raise MissingExtraError("Parquet files", "archive") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

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
_WRITE_OPTIONS: dict[str, str | list[str]] = {
    "compression": "zstd",
    "use_dictionary": ["subject", "type", "source"],
    "write_statistics": ["position", "time", "recorded"],
}
"""Columns whose values are all different get no dictionary."""
_BATCH_ROWS = 16_384
_READ_COLUMNS = {"position": pa.int64(), "subject": pa.string(), "event": pa.binary()}


def return_freed_memory() -> None:
    """Let this process return the memory that Arrow frees to the system; Arrow's own pool keeps it."""
    pa.set_memory_pool(pa.system_memory_pool())


class ParquetWriter:
    """A context in which events are written to one file, group by group."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, **_WRITE_OPTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def add(self, events: Sequence[Recorded]) -> None:
        """Write these events as a row group."""
        self._writer.write_table(as_table(events))


def parquet_bytes(events: Sequence[Recorded], previous: Path | None = None) -> bytes:
    """Return a Parquet file of these events, after those of the file ``previous``."""
    table = as_table(events)
    if previous is not None:
        table = pa.concat_tables([pq.read_table(previous, schema=SCHEMA), table])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_WRITE_OPTIONS)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def read_batches(source: Path | bytes, unread: frozenset[str] = frozenset()) -> Iterator[list[Recorded]]:
    """Yield the events of a file, given by its path or its bytes, in order.

    Events of the types ``unread`` are left out, except the last of each batch.

    Raises:
        OSError: the file cannot be read.
    """
    for columns in read_columns(source, unread):
        yield [Recorded(*row) for row in zip(*columns, strict=True)]


def read_columns(
    source: Path | bytes, unread: frozenset[str] = frozenset(), rows: int = _BATCH_ROWS
) -> Iterator[tuple[list[int], list[str], list[bytes]]]:
    """Yield positions, subjects and events of a file as ``read_batches`` does, without an object for each event.

    ``rows`` are read at a time: two batches are in memory as Arrow's columns and as lists.

    Raises:
        OSError: the file cannot be read.
    """
    columns = [*_READ_COLUMNS, "type"] if unread else list(_READ_COLUMNS)
    try:
        # Faster to import and to open than a data set.
        with pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source) as file:
            for batch in file.iter_batches(rows, columns=columns, use_threads=False):
                kept = _without(batch, unread) if unread and batch.num_rows else batch
                read = [kept.column(name).cast(kind) for name, kind in _READ_COLUMNS.items()]
                if any(column.null_count for column in read):
                    raise OSError(f"a file of the archive has rows without {' or '.join(_READ_COLUMNS)}")
                positions, subjects, events = (column.to_pylist() for column in read)
                yield positions, subjects, events
    except (pa.ArrowException, KeyError) as error:
        raise OSError(str(error)) from error


class EventTable:
    """The events of one file in memory, found by row or by subject."""

    def __init__(self, data: bytes) -> None:
        """Read a file, given by its bytes.

        Raises:
            OSError: it cannot be read, or has rows without a position, a subject or bytes.
        """
        try:
            with pq.ParquetFile(pa.BufferReader(data)) as file:
                table = file.read(columns=list(_READ_COLUMNS), use_threads=False).combine_chunks()
            if any(column.null_count for column in table.columns):
                raise OSError(f"a file of the archive has rows without {' or '.join(_READ_COLUMNS)}")
            self._positions = table.column("position").combine_chunks().cast(pa.int64())
            names = table.column("subject").combine_chunks().cast(pa.string()).dictionary_encode()
            self._events = table.column("event").combine_chunks().cast(pa.binary())
        except (pa.ArrowException, KeyError) as error:
            raise OSError(str(error)) from error
        self._numbers, self._names = names.indices, names.dictionary

    def is_range(self, first: int, last: int) -> bool:
        """Return whether there is one row for each of these positions, in order."""
        return bool(self._positions.equals(pa.array(range(first, last + 1), pa.int64())))

    def rows(self, first: int, count: int) -> list[Recorded]:
        """Return so many events from a row on; the first row is 0."""
        return self._recorded(pa.array(range(first, min(first + count, len(self._positions))), pa.int64()))

    def of_subjects(
        self, subject: str, after: int, until: int, at_most: int | None = None, *, newest: bool = False
    ) -> list[Recorded]:
        """Return the events of a subject or wildcard after one position up to another: all, some, or the newest.

        Markers of lost positions are left out.
        """
        wanted = pc.index_in(pa.array([] if subject == GAP_SUBJECT else [subject], pa.string()), self._names)
        if not {"*", ">"}.isdisjoint(subject.split(".")):
            matches = pc.match_substring_regex(self._names, _pattern(subject))
            wanted = pc.indices_nonzero(pc.and_(matches, pc.not_equal(self._names, GAP_SUBJECT)))
        rows = pc.is_in(self._numbers, pc.drop_null(wanted).cast(pa.int32()))
        within = pc.and_(pc.greater(self._positions, after), pc.less_equal(self._positions, until))
        found = pc.indices_nonzero(pc.and_(rows, within))
        return self._recorded(found[-1:] if newest and len(found) else found[:at_most])

    def newest_positions(self, until: int) -> Iterator[tuple[str, int]]:
        """Yield each subject with its newest position that is not after another."""
        numbers = self._numbers.filter(pc.less_equal(self._positions, until))
        positions = self._positions.filter(pc.less_equal(self._positions, until))
        table = pa.table({"subject": numbers, "position": positions})
        newest = table.group_by("subject").aggregate([("position", "max")])
        names = self._names.take(newest.column("subject")).to_pylist()
        yield from zip(names, newest.column("position_max").to_pylist(), strict=True)

    def _recorded(self, rows: pa.Array) -> list[Recorded]:
        names = self._names.take(self._numbers.take(rows))
        columns = (self._positions.take(rows), names, self._events.take(rows))
        return [Recorded(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]


def _pattern(subject: str) -> str:
    """Return the regular expression of a subject with wildcards."""
    tokens = {"*": r"[^.]+", ">": r".+"}
    return "^" + r"\.".join(tokens.get(token) or re.escape(token) for token in subject.split(".")) + "$"


def _without(batch: pa.RecordBatch, types: frozenset[str]) -> pa.RecordBatch:
    """Return the rows of other types, and the last one; a row without a type stays."""
    others = pc.invert(pc.is_in(batch.column("type").cast(pa.string()), pa.array(sorted(types))))
    is_last = pa.array([False] * (batch.num_rows - 1) + [True])
    return batch.filter(pc.or_(others, is_last))


def as_table(events: Sequence[Recorded]) -> pa.Table:
    """Return events as rows; an event that is not a CloudEvent has only its bytes."""
    stored = [_stored(event) for event in events]
    names = [(one.type, one.source, one.id, one.time, one.recordedtime) if one else (None,) * 5 for one in stored]
    types, sources, ids, times, recorded = zip(*names, strict=True) if names else ((),) * 5
    texts = [event.subject for event in events]
    arrays = [
        pa.array([event.position for event in events], pa.int64()),
        pa.array(texts, pa.string()).dictionary_encode(),
        moments(times),
        moments(recorded),
        pa.array(types, pa.string()).dictionary_encode(),
        pa.array(sources, pa.string()).dictionary_encode(),
        pa.array(ids, pa.string()),
        pa.array([event.data for event in events], pa.binary()),
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def moments(texts: Sequence[str | None]) -> pa.Array:
    """Return RFC 3339 times as timestamps, one by one if Arrow's parser rejects them."""
    try:
        return pa.array(texts, pa.string()).cast(pa.timestamp("us", tz="UTC"))
    except pa.ArrowInvalid:
        return pa.array([parse_time(text) if text else None for text in texts], pa.timestamp("us", tz="UTC"))


def _stored(event: Recorded) -> StoredFields | None:
    try:
        return stored_decoder.decode(event.data)
    except msgspec.MsgspecError:
        return None
