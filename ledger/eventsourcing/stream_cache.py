"""What a process remembers of sequences: where they end, and the events of those that it read last.

Events never change, so what was read is true for ever; whether more has come is asked at each reading.
"""

from __future__ import annotations

from typing import NamedTuple

from eventsourcing.persistence import StoredEvent

_TAILS = 100_000
_BYTES = 64 * 1024 * 1024
_BYTES_AN_EVENT = 400
"""What Python needs for a stored event besides its state, about."""


class StreamTail(NamedTuple):
    """The end of a sequence: its highest version, and the position of its newest message (0: none)."""

    version: int = -1
    position: int = 0


class CachedEvents(NamedTuple):
    """All events of a sequence up to a position, by version."""

    position: int
    events: list[StoredEvent]


NOTHING = CachedEvents(0, [])


class StreamCache:
    """Tails of sequences, and sequences as far as they fit; those used least recently go first."""

    def __init__(self) -> None:
        self._tails: dict[str, StreamTail] = {}
        self._seen: dict[str, CachedEvents] = {}
        self._bytes = 0

    def tail(self, subject: str) -> StreamTail | None:
        """The end of a sequence when it was last seen or written."""
        return self._tails.get(subject)

    def note_tail(self, subject: str, tail: StreamTail) -> None:
        """A sequence ends here, or behind it."""
        known = self._tails.pop(subject, tail)
        self._tails[subject] = max(known, tail, key=_position)
        if len(self._tails) > _TAILS:
            del self._tails[next(iter(self._tails))]

    def seen(self, subject: str) -> CachedEvents:
        """What was read of a sequence; its list is not to be changed."""
        found = self._seen.pop(subject, None)
        if found is None:
            return NOTHING
        self._seen[subject] = found  # used last now
        return found

    def cache(self, subject: str, seen: CachedEvents) -> None:
        """This was read of a sequence, from its beginning."""
        if seen.position < self.seen(subject).position:
            return  # another call has read more meanwhile
        self._bytes += _size(seen) - _size(self._seen.pop(subject, NOTHING))
        self._seen[subject] = seen
        while self._bytes > _BYTES:
            self._bytes -= _size(self._seen.pop(next(iter(self._seen))))


def _position(tail: StreamTail) -> int:
    return tail.position


def _size(seen: CachedEvents) -> int:
    return sum(len(event.state) + _BYTES_AN_EVENT for event in seen.events)
