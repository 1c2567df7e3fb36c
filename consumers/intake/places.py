"""Places of messages in the inboxes and the events in them, for receipts by place.

A part of the intake's index: it holds the recorded and rejected events of the last messages of each inbox. It has the
subject of each rejected event in the stream REJECTED, because the server finds one by its place alone only slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledger.nats.client import LedgerClient
    from ledger.store.event_id_index import Change, EventIdIndex

_SCHEMA = """
CREATE TABLE IF NOT EXISTS places (stream TEXT NOT NULL, seq INTEGER NOT NULL, part INTEGER NOT NULL, key BLOB NOT NULL,
PRIMARY KEY (stream, seq, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (stream TEXT NOT NULL, seq INTEGER NOT NULL, token TEXT NOT NULL,
events INTEGER NOT NULL, PRIMARY KEY (stream, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejections (stream TEXT NOT NULL, seq INTEGER NOT NULL, part INTEGER NOT NULL,
subject TEXT NOT NULL, PRIMARY KEY (stream, seq, part)) WITHOUT ROWID;
"""
_PUT_EVENT = "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)"
_PUT_REJECTION = "INSERT OR REPLACE INTO rejections VALUES (?, ?, ?, ?)"
_DELETE_EVENT = "DELETE FROM places WHERE stream = ? AND seq = ? AND part = ?"
_DELETE_REJECTION = "DELETE FROM rejections WHERE stream = ? AND seq = ? AND part = ?"
_KEPT = 100_000
"""Number of messages to keep for each inbox."""
_TRIM_ROWS = 10_000


class EventPlace(NamedTuple):
    """The place of an event: the inbox's stream, the message's sequence, and its number in a batch (from 1), or 0."""

    stream: str
    sequence: int
    part: int = 0


class BatchPlace(NamedTuple):
    """A message that held a batch: its source's token and its number of events."""

    token: str
    events: int


async def places_gone(client: LedgerClient, places: Iterable[EventPlace]) -> set[EventPlace]:
    """Return the places of messages that are no longer in their inboxes.

    Raises:
        UnavailableError: the server does not answer.

    """
    wanted, gone = set(places), set[EventPlace]()
    for stream in {place.stream for place in wanted}:
        state = (await js_api(client, f"STREAM.INFO.{stream}", {"deleted_details": True})).get("state")
        if state is not None:  # otherwise the stream is missing, and is created again
            deleted = set(state.get("deleted") or ())
            first = state["first_seq"]
            gone |= {
                one for one in wanted if one.stream == stream and (one.sequence < first or one.sequence in deleted)
            }
    return gone


class EventPlaces:
    """The table of places in the intake's index."""

    def __init__(self, index: EventIdIndex) -> None:
        self._index = index
        self._noted = 0
        self._last: dict[str, int] = {}
        index.table(_SCHEMA)

    def note(self, events: Iterable[tuple[EventPlace, bytes]]) -> None:
        """Store the places and keys of recorded events.

        Raises:
            UnavailableError: the index cannot be written.

        """
        self._note(_PUT_EVENT, _DELETE_REJECTION, [(*place, key) for place, key in events])

    def note_rejections(self, subjects: Iterable[tuple[EventPlace, str]]) -> None:
        """Keep the subjects under which rejected events are stored; raises like ``note``."""
        self._note(_PUT_REJECTION, _DELETE_EVENT, [(*place, subject) for place, subject in subjects])

    def _note(self, put: str, delete: str, rows: list[tuple[str, int, int, bytes | str]]) -> None:
        if not rows:
            return
        changes: list[Change] = [(put, rows)]
        # A redelivered message may be decided otherwise, and an inbox that `admin init` made anew begins at 1.
        repeated = [row[:3] for row in rows if row[1] <= self._last.get(row[0], row[1])]
        if repeated:
            changes.append((delete, repeated))
        self._last |= {stream: sequence for stream, sequence, *_ in rows}
        self._noted += len(rows)
        if self._noted >= _TRIM_ROWS:
            self._noted = 0
            oldest = [(stream, last - _KEPT) for stream, last in self._last.items()]
            changes += [
                ("DELETE FROM places WHERE stream = ? AND seq < ?", oldest),
                ("DELETE FROM rejections WHERE stream = ? AND seq < ?", oldest),
                ("DELETE FROM batches WHERE stream = ? AND seq < ?", oldest),
            ]
        self._index.commit([], {}, changes=changes)

    def note_batches(self, batches: Iterable[tuple[EventPlace, BatchPlace]]) -> None:
        """Store the sizes of batches; raises like ``note``."""
        rows = [(place.stream, place.sequence, *batch) for place, batch in batches]
        if rows:
            self._index.commit([], {}, changes=[("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", rows)])

    def keys_of(self, stream: str, sequence: int) -> dict[int, bytes]:
        """Return the keys of the recorded events of a message, by part."""
        return dict(self._index.rows("SELECT part, key FROM places WHERE stream = ? AND seq = ?", (stream, sequence)))

    def rejections_of(self, stream: str, sequence: int) -> dict[int, str]:
        """Return the subjects of the rejected events of a message, by part."""
        query = "SELECT part, subject FROM rejections WHERE stream = ? AND seq = ?"
        return dict(self._index.rows(query, (stream, sequence)))

    def last_of(self, stream: str) -> int:
        """Return the highest noted sequence of a stream, or 0."""
        query = "SELECT max(seq) FROM (SELECT max(seq) AS seq FROM places WHERE stream = ?1"
        query += " UNION ALL SELECT max(seq) FROM rejections WHERE stream = ?1"
        query += " UNION ALL SELECT max(seq) FROM batches WHERE stream = ?1)"
        (row,) = self._index.rows(query, (stream,))
        return int(row[0] or 0)

    def batch_of(self, stream: str, sequence: int) -> BatchPlace | None:
        """Return the batch of a message, or ``None``."""
        query = "SELECT token, events FROM batches WHERE stream = ? AND seq = ?"
        return next((BatchPlace(*row) for row in self._index.rows(query, (stream, sequence))), None)
