"""Events that wait for late ones: kept by the moment at which they happened, and taken in the order of moments.

They lie in rows of two seconds each, so that only the rows in use are in memory.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from domain.abuse.history import ObservedAction
from domain.abuse.stored_bodies import StoredBody
from domain.keyed_state import LostRowError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.history import GuardEvent
    from domain.keyed_state import State

_SECONDS = 2
_ROW = 256


class WaitingEvent(NamedTuple):
    """An event that waits, first the parts by which events are ordered."""

    moment: float
    name: str
    position: int
    at: float
    recorded: float
    body: StoredBody
    corrects: int | None
    action: ObservedAction | None


class _Waiting(msgspec.Struct):
    rows: dict[int, int] = {}
    """The number of waiting events by time, for the times after the one in use."""
    heap: list[WaitingEvent] = []
    """The events of the time in use."""
    until: int = -(2**53)
    """The last time in use."""


class WaitingRoom:
    """The events that wait, and the order in which they leave."""

    def __init__(self, state: State) -> None:
        self._waiting = state.record("waiting", _Waiting)
        self._rows = state.table("waiting", list[WaitingEvent], cached=4)
        self._next = min(self._waiting.rows, default=None)

    def add(self, event: GuardEvent, action: ObservedAction | None, moment: float) -> None:
        """Let an event wait that counts from this moment."""
        body = StoredBody(event.body)
        waiting = WaitingEvent(
            moment, event.name, event.position, event.at, event.recorded, body, event.corrects, action
        )
        time = int(moment // _SECONDS)
        if time <= self._waiting.until:
            heappush(self._waiting.heap, waiting)
            return
        number = self._waiting.rows.get(time, 0)
        key = f"{time} {number // _ROW}"
        row = self._rows.get(key) if number % _ROW else []
        if row is None:
            message = f"the events that wait have no row {key!r}"
            raise LostRowError(message)
        row.append(waiting)
        self._rows.put(key, row)
        self._waiting.rows[time] = number + 1
        self._next = time if self._next is None else min(self._next, time)

    def until(self, moment: float) -> Iterator[WaitingEvent]:
        """Yield and remove the events up to a moment, in the order of moments, names and positions."""
        waiting = self._waiting
        while True:
            if waiting.heap:
                if waiting.heap[0].moment > moment:
                    return
                yield heappop(waiting.heap)
            elif self._next is not None and self._next * _SECONDS <= moment:
                self._use(self._next)
            else:
                return

    def _use(self, time: int) -> None:
        """Take a time into use."""
        for number in range(0, self._waiting.rows.pop(time), _ROW):
            key = f"{time} {number // _ROW}"
            row = self._rows.get(key)
            if row is None:
                message = f"the events that wait have no row {key!r}"
                raise LostRowError(message)
            self._waiting.heap += row
            self._rows.drop(key)
        heapify(self._waiting.heap)
        self._waiting.until = time
        self._next = min(self._waiting.rows, default=None)
