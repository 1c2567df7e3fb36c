"""A process's cache of sequences: their ends, and the events of recently read sequences.

Events never change, so that cached events remain valid; each read asks the server for newer ones.
"""

from __future__ import annotations

from typing import NamedTuple

from eventsourcing.persistence import StoredEvent

_TAILS = 100_000
_BYTES = 64 * 1024 * 1024
_BYTES_AN_EVENT = 400
"""Approximate memory of a stored event besides its state."""


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
    """Ends and events of sequences, limited in size; the least recently used are dropped first."""

    def __init__(self) -> None:
        self._tails: dict[str, StreamTail] = {}
        self._events: dict[str, CachedEvents] = {}
        self._bytes = 0

    def tail(self, subject: str) -> StreamTail | None:
        """Return the last known end of a sequence."""
        return self._tails.get(subject)

    def note_tail(self, subject: str, tail: StreamTail) -> None:
        """Store the end of a sequence, unless a later one is known."""
        cached = self._tails.pop(subject, tail)
        self._tails[subject] = max(cached, tail, key=_position)
        if len(self._tails) > _TAILS:
            del self._tails[next(iter(self._tails))]

    def seen(self, subject: str) -> CachedEvents:
        """Return the cached events of a sequence; do not modify the list."""
        found = self._events.pop(subject, None)
        if found is None:
            return NOTHING
        self._events[subject] = found  # most recently used now
        return found

    def cache(self, subject: str, cached: CachedEvents) -> None:
        """Store the events of a sequence, from its beginning."""
        if cached.position < self.seen(subject).position:
            return  # a concurrent call has read more
        self._bytes += _size(cached) - _size(self._events.pop(subject, NOTHING))
        self._events[subject] = cached
        while self._bytes > _BYTES:
            self._bytes -= _size(self._events.pop(next(iter(self._events))))


def _position(tail: StreamTail) -> int:
    return tail.position


def _size(cached: CachedEvents) -> int:
    return sum(len(event.state) + _BYTES_AN_EVENT for event in cached.events)
