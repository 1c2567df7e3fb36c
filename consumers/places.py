"""Places of messages in the inbox, and which events came with them: for receipts that ask by place.

A part of the intake's index: it has what this intake has recorded of the last messages of each inbox. What was
rejected is in the stream REJECTED, under its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledger.index import NameIndex

_SCHEMA = """
CREATE TABLE IF NOT EXISTS places (stream TEXT NOT NULL, seq INTEGER NOT NULL, part INTEGER NOT NULL, key BLOB NOT NULL,
PRIMARY KEY (stream, seq, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (stream TEXT NOT NULL, seq INTEGER NOT NULL, token TEXT NOT NULL,
events INTEGER NOT NULL, PRIMARY KEY (stream, seq)) WITHOUT ROWID;
"""
_KEPT = 100_000
"""Messages of each inbox, counted back from the last one that was dealt with."""


class Place(NamedTuple):
    """Where an event came: the inbox's stream, the message's sequence, its number in a batch (from 1; alone: 0)."""

    stream: str
    sequence: int
    part: int = 0


class Batch(NamedTuple):
    """A message that held a batch: its source's token, and how many events there were."""

    token: str
    events: int


class Places:
    """The places that the intake has noted."""

    def __init__(self, index: NameIndex) -> None:
        self._index = index
        index.table(_SCHEMA)

    def note(self, events: Iterable[tuple[Place, bytes]]) -> None:
        """Keep the names' keys of events that are recorded.

        Raises:
            UnavailableError: the index cannot be written.

        """
        self._keep("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", [(*place, key) for place, key in events])

    def note_batches(self, batches: Iterable[tuple[Place, Batch]]) -> None:
        """Keep the sizes of batches; raises like ``note``."""
        rows = [(place.stream, place.sequence, *batch) for place, batch in batches]
        self._keep("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", rows)

    def _keep(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:  # they replace those of an inbox that was made anew, which begins again at 1
            self._index.commit([], {}, also=[(statement, rows)])

    def keys_of(self, stream: str, sequence: int) -> dict[int, bytes]:
        """Return the keys of what a message brought, by part."""
        return dict(self._index.rows("SELECT part, key FROM places WHERE stream = ? AND seq = ?", (stream, sequence)))

    def batch_of(self, stream: str, sequence: int) -> Batch | None:
        """Return the batch that a message held."""
        query = "SELECT token, events FROM batches WHERE stream = ? AND seq = ?"
        return next((Batch(*row) for row in self._index.rows(query, (stream, sequence))), None)

    def trim(self, stream: str, floor: int) -> None:
        """Drop places far behind the last message that was dealt with."""
        oldest = ((stream, floor - _KEPT),)
        self._index.commit([], {}, also=[
            ("DELETE FROM places WHERE stream = ? AND seq < ?", oldest),
            ("DELETE FROM batches WHERE stream = ? AND seq < ?", oldest),
        ])  # fmt: skip
