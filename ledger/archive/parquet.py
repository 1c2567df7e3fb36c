"""Parquet files of events. Requires pyarrow, which the package's extra `archive` installs.

Columns: `position`, `subject`, `time`, `recorded` (UTC, microseconds), `type`, `source`, `id`, `event` (the stored
bytes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import msgspec

from ledger.errors import MissingExtraError
from ledger.store.cloudevents import StoredFields, parse_time, stored_decoder
from ledger.store.log import Recorded

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
    columns = [*_READ_COLUMNS, "type"] if unread else list(_READ_COLUMNS)
    try:
        # Faster to import and to open than a data set.
        with pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                kept = _without(batch, unread) if unread and batch.num_rows else batch
                read = [kept.column(name).cast(kind) for name, kind in _READ_COLUMNS.items()]
                if any(column.null_count for column in read):
                    raise OSError(f"a file of the archive has rows without {' or '.join(_READ_COLUMNS)}")
                yield [Recorded(*row) for row in zip(*(column.to_pylist() for column in read), strict=True)]
    except (pa.ArrowException, KeyError) as error:
        raise OSError(str(error)) from error


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
